"""Caption metrics: one file a metric, found by its name; statistics per image, one bootstrap and one paired test."""
