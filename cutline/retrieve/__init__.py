"""Ranking images and texts by one another."""
