"""Towers taken out of other checkpoints."""

from __future__ import annotations

import pytest
import torch

from cutline.core.errors import CheckpointError
from cutline.families.models.tower import open_tower
from cutline.families.open import find
from tests.conftest import drawing


def test_a_captioners_encoder_is_a_tower(tmp_path):
    captioner = find("vision_encoder_decoder").tiny(["a red square"]).eval()
    captioner.save(tmp_path)
    tower, image_processor = open_tower(str(tmp_path))
    pixels = captioner.pixels([drawing(1)])
    with torch.no_grad():
        wanted = captioner.encode_images(pixels)["features"]
        found = tower.eval()(pixels["pixel_values"]).last_hidden_state
    torch.testing.assert_close(found, wanted)
    assert image_processor(drawing(1), return_tensors="pt")["pixel_values"].shape == pixels["pixel_values"].shape
    with pytest.raises(CheckpointError, match="could not be opened"):
        open_tower(str(tmp_path / "elsewhere"))
