"""Probes: find mistakes in a recipe, its data and its model before GPU hours are spent on them."""
