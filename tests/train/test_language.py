"""A small language model: it learns, says what it read, never read what is held out, and a tower is joined to it."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from cutline.cli.main import app
from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.families.open import find
from cutline.train.language import collect_texts

TRAIN = ["a red circle above a blue square", "a green triangle beside a red circle"]
HELD_OUT = "A purple square, above a green circle."


@pytest.fixture
def source(tmp_path):
    rows = [("a.png", "train", TRAIN[0]), ("b.png", "train", TRAIN[1]), ("c.png", "val", HELD_OUT)]
    path = tmp_path / "captions.csv"
    path.write_text("image,split,caption\n" + "".join(f'{name},{split},"{text}"\n' for name, split, text in rows))
    return str(path)


def texts(path, *lines):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    else:
        path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_what_is_held_out_is_left_out_of_all_texts(source, tmp_path):
    """Case and punctuation don't hide it, and what other files say of the same picture goes, too."""
    first = texts(tmp_path / "1.gz", "a dog", "a purple square above a green circle")
    second = texts(tmp_path / "2.gz", "one dog", "something purple and something green")
    alone = texts(tmp_path / "3.txt", "a cat", "", "a bird", "A PURPLE SQUARE ABOVE A GREEN CIRCLE")
    training, held_out, left_out = collect_texts([source, first, second, alone])
    assert training == [*TRAIN, "a dog", "one dog", "a cat", "a bird"]
    assert held_out == [HELD_OUT]
    assert left_out == 3


def test_sources_without_splits_are_refused(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\na.png,a dog\n")
    with pytest.raises(DataError, match="has no splits"):
        collect_texts([str(path)])


@pytest.mark.parametrize("data", [b"not gzip", gzip.compress(b"a dog")[:12], gzip.compress(b"\xff\xfe\xfd")])
def test_what_is_no_text_is_refused(tmp_path, data):
    (tmp_path / "a.gz").write_bytes(data)
    with pytest.raises(DataError, match="could not be read as text"):
        collect_texts([str(tmp_path / "a.gz")])


def test_a_tower_is_joined_to_what_the_command_makes(source, tmp_path):
    """It has learnt the captions: it goes on with what it read, and ends; rare words are never said."""
    out = tmp_path / "small"
    sizes = ["--layers", "1", "--width", "32", "--heads", "2", "--dropout", "0", "--min-count", "1"]
    rare = texts(tmp_path / "more.txt", "<eos> <unk> a zebra")
    command = ["language", source, rare, "-o", str(out), "--epochs", "60", "--lr", "0.02", "--batch-size", "2", *sizes]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    facts = json.loads((out / "made-of.json").read_text())
    assert facts["captions"] == 3
    assert facts["nats_a_token"]["train"] < 0.5
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    start = torch.tensor([[tokenizer.bos_token_id, *tokenizer("a green", add_special_tokens=False)["input_ids"]]])
    said = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=12)[0]
    assert tokenizer.decode(said, skip_special_tokens=True) == TRAIN[1]
    assert said[-1] == tokenizer.eos_token_id
    assert model.generation_config.suppress_tokens == [tokenizer.unk_token_id]
    family = find("vision_prefix").new({"text": str(out), "image_size": 32}, [], seed=0)
    family.prompt = ""
    batch = family.collate([Sample(id="a", image="", captions=(TRAIN[0],))], with_targets=True, images=[_grey()])
    assert torch.isfinite(family(batch).nll)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "already holds a model" in again.output


def _grey():
    from PIL import Image

    return Image.new("RGB", (32, 32), (128, 128, 128))
