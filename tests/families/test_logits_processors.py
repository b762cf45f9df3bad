"""Bounds in words and given beginnings hold for every way of generating; what a checkpoint keeps is used again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from cutline.core.config import parse
from cutline.core.errors import RecipeError
from cutline.core.records import Sample
from cutline.families.common.logits_processors import WordCount, begins_word
from cutline.families.open import find
from cutline.families.settings import GenerateSettings
from tests.conftest import drawing

FAMILIES = ["vision_encoder_decoder", "qwen2_5_vl", "cnn_rnn"]
WAYS = [{"num_beams": 1}, {"num_beams": 3}, {"do_sample": True}]
CAPTIONS = ["a red circle above a blue square", "two dogs run on the grass", "a boat lies on the shore"]


def say(name, **settings):
    family = find(name).tiny(CAPTIONS, seed=1).eval()
    torch.manual_seed(0)
    samples = [Sample(id=str(number), image="") for number in range(3)]
    batch = family.collate(samples, with_targets=False, images=[drawing(number) for number in range(3)])
    return family, family.generate(batch, GenerateSettings(**settings))


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_captions_keep_to_their_bounds(name, way):
    _, made = say(name, max_new_tokens=60, min_words=4, max_words=6, **way)
    for one in made:
        assert len(one.text.split()) <= 6
        assert len(one.text.split()) >= 4 or not one.finished
    _, free = say(name, max_new_tokens=60, **way)
    assert any(len(one.text.split()) > 6 or len(one.text.split()) < 4 for one in free)  # bounds that bound nothing


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_captions_begin_as_they_must(name, way):
    _, made = say(name, max_new_tokens=12, prefix="a red", **way)
    assert all(one.text.startswith("a red") for one in made)
    assert all(one.logprob > float("-inf") for one in made)
    _, free = say(name, max_new_tokens=12, **way)
    assert not all(one.text.startswith("a red") for one in free)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_that_begin_words(name):
    family = find(name).tiny(CAPTIONS)
    ids = family.tokenizer("a red square", add_special_tokens=False)["input_ids"]
    table = begins_word(family.tokenizer, len(family.tokenizer) + 3)
    assert table[-3:].all()  # beyond the vocabulary
    texts = [family.tokenizer.decode(ids[: end + 1]) for end in range(len(ids))]
    for before, after, id in zip(texts, texts[1:], ids[1:], strict=False):
        assert bool(table[id]) == (len(after.split()) > len(before.split())), (before, after)


def test_a_full_caption_ends_when_it_would_begin_another_word_but_may_finish_one():
    family: Any = find("vision_encoder_decoder").tiny(CAPTIONS)
    tokenizer, end = family.tokenizer, family.end_ids[0]
    said = torch.tensor([tokenizer("a red")["input_ids"]] * 2)
    table = begins_word(tokenizer, len(tokenizer))
    new, same = int(table.nonzero()[0]), next(i for i in range(260) if not table[i] and i != end)
    scores = torch.zeros(2, len(tokenizer))
    scores[0, new], scores[1, same] = 5.0, 5.0
    bounded = WordCount(tokenizer, [end], 0, 2)(said, scores)
    assert bounded[0].argmax() == end
    assert torch.isinf(bounded[0]).sum() == len(tokenizer) - 1
    assert bounded[1].argmax() == same
    assert bounded[1, new] == float("-inf")


def test_impossible_bounds_are_an_error():
    with pytest.raises(RecipeError, match="above max_words"):
        parse({"min_words": 5, "max_words": 4}, GenerateSettings)


# ---- kept with the checkpoint


def test_what_a_checkpoint_keeps_is_used_where_a_recipe_says_nothing(tmp_path, messages):
    from cutline.run.recipe import Recipe, with_saved_generation
    from cutline.run.run import Run

    family = find("vision_encoder_decoder").tiny(CAPTIONS)
    family.generation = GenerateSettings(max_new_tokens=9, no_repeat_ngram_size=3, min_words=2, batch_size=5)
    family.save(tmp_path / "model")
    assert json.loads((tmp_path / "model/cutline.json").read_text())["generate"]["no_repeat_ngram_size"] == 3
    drawing(1).save(tmp_path / "one.png")
    (tmp_path / "data.csv").write_text("image,caption,split\none.png,a red square,test\n")
    table = {
        "data": {"source": str(tmp_path / "data.csv")},
        "model": {"checkpoint": str(tmp_path / "model"), "device": "cpu"},
        "generate": {"max_new_tokens": 7, "batch_size": 2},
    }
    recipe = with_saved_generation(parse(table, Recipe))
    assert (recipe.generate.max_new_tokens, recipe.generate.no_repeat_ngram_size, recipe.generate.min_words) == (
        7,
        3,
        2,
    )
    assert recipe.generate.batch_size == 2
    Run(parse(table, Recipe), tmp_path / "run")(["prepare", "caption"])
    talk = messages()
    assert "generation settings differ from those saved with the checkpoint: max_new_tokens = 7 (checkpoint: 9)" in talk
    # the run's own recipe, with everything written out, means the same
    from cutline.core.config import load

    assert with_saved_generation(load(tmp_path / "run/recipe.toml", Recipe)).generate == recipe.generate


def test_another_prompt_than_the_trained_one_is_said(tmp_path, messages):
    from cutline.families.open import open_family
    from cutline.families.settings import ModelSettings

    family = find("qwen2_5_vl").tiny(CAPTIONS)
    family.prompt = "Say what you see."
    family.save(tmp_path)
    for prompt, words in ((None, False), ("Say what you see.", False), ("Describe it.", True)):
        open_family(parse({"checkpoint": str(tmp_path), "prompt": prompt}, ModelSettings))
        assert ("not the one that this checkpoint was trained with" in messages()) == words
