"""The effect of context on captions: with it, without it, with another image's, with the names in the references."""
