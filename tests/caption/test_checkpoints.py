"""Checkpoints that Cutline did not write, that lack weights, or that are damaged."""

from __future__ import annotations

import os

import pytest

from cutline.core.errors import CheckpointError
from cutline.families.open import find, open_checkpoint


@pytest.mark.parametrize("name", ["cnn_rnn", "vision_encoder_decoder", "qwen2_5_vl"])
def test_a_checkpoint_without_our_own_file_is_opened_by_its_config(name, tmp_path):
    find(name).tiny().save(tmp_path)
    (tmp_path / "cutline.json").unlink()
    assert open_checkpoint(tmp_path).name() == name


@pytest.mark.parametrize("name", ["cnn_rnn", "vision_encoder_decoder", "qwen2_5_vl"])
def test_a_checkpoint_that_lacks_weights_is_refused(name, tmp_path):
    """Hugging Face draws them by chance and goes on: captions would come, and mean nothing."""
    from safetensors.torch import load_file, save_file

    find(name).tiny().save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    names = [key for key in weights if key.endswith("weight") and "pooler" not in key]
    del weights[names[len(names) // 2]]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights that"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "could not be opened as cnn_rnn"),
        (lambda folder: [path.unlink() for path in folder.glob("c*.json")], "has no config.json"),
        (lambda folder: (folder / "cutline.json").write_text("{"), "lacks the checkpoint's family"),
        (lambda folder: (folder / "cutline.json").write_text('{"family": "cnn-rmn"}'), "Did you mean cnn_rnn?"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "could not be opened as cnn_rnn"),
        (lambda folder: (folder / "model.safetensors").unlink(), "could not be opened as cnn_rnn"),
    ],
)
def test_a_damaged_checkpoint_is_a_user_error(damage, words, checkpoint, photos, tmp_path, command):
    import shutil

    shutil.copytree(checkpoint, tmp_path / "copy")
    damage(tmp_path / "copy")
    code, out, talk = command("caption", tmp_path / "copy", photos / "1.png")
    assert (code, out) == (2, "")
    assert words in talk
    assert len(talk.splitlines()) == 2
