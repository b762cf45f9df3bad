"""Cutline adapts vision-language models to your own captioned images, captions with them, and scores them honestly."""
