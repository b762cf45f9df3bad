"""What context is worth: captions with it, without it, with another image's, and with what only the caption knows."""
