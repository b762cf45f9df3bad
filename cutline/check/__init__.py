"""Probes: what can be known to be wrong with a recipe, its data and its model before GPU hours are spent."""
