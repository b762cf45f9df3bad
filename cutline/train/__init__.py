"""Training. The families come first, since they keep a library quiet that transformers' Trainer imports."""

import cutline.families  # noqa: F401
