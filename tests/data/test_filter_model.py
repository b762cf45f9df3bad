"""Captions that a model finds unfit for their image are taken out; a model's scores are asked for once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch

from cutline.cli.prepare import prepare
from cutline.core import config as recipe
from cutline.core.errors import CheckpointError, RecipeError
from cutline.data.dataset import Dataset
from cutline.data.step import Scorer
from cutline.data.steps import filter as filtering
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.open import find
from cutline.images.open import open_image
from cutline.retrieve import caption_scores
from cutline.run.recipe import Recipe
from cutline.run.run import Run
from cutline.run.tiny import rehearsal
from tests.data.making import pictures, run

CAPTIONS = ["two dogs run along the water", "a red square on white", "three cats asleep"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("models")
    for name in ("clip", "blip"):
        find(name).tiny(CAPTIONS, task="embed").save(folder / name)
    find("vision_encoder_decoder").tiny(CAPTIONS).save(folder / "captioner")
    return {path.name: str(path) for path in folder.iterdir()}


def test_two_towers_give_the_cosine(checkpoints, tmp_path) -> None:
    pictures(tmp_path, 2)
    image = str(tmp_path / "images/0.png")
    clip = cast(RetrievalFamily, find("clip").open(checkpoints["clip"]))
    with torch.no_grad():
        vectors = clip.embed_images(clip.pixels([open_image(image)]))
        texts = torch.cat([clip.embed_texts(clip.encode_texts([caption])) for caption in CAPTIONS])
    expected = (vectors @ texts.T)[0].tolist()
    assert caption_scores.scorer(checkpoints["clip"])(image, CAPTIONS) == pytest.approx(expected, abs=1e-5)


def test_a_matcher_gives_the_probability_that_they_belong_together(checkpoints, tmp_path) -> None:
    pictures(tmp_path, 2)
    image = str(tmp_path / "images/0.png")
    blip = cast(RetrievalFamily, find("blip").open(checkpoints["blip"]))
    assert "match" in blip.tasks
    with torch.no_grad():
        seen = blip.encode_images(blip.pixels([open_image(image)]))
        logits = [
            blip.match_logits(seen, blip.encode_texts([text]), torch.zeros(1, dtype=torch.int64)) for text in CAPTIONS
        ]
    expected = torch.cat(logits).softmax(1)[:, 1].tolist()
    assert caption_scores.scorer(checkpoints["blip"])(image, CAPTIONS) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_score_is_refused(checkpoints) -> None:
    with pytest.raises(CheckpointError):
        caption_scores.scorer(checkpoints["captioner"])
    with pytest.raises(RecipeError, match="model needs min_score"):
        recipe.parse({"model": checkpoints["clip"]}, filtering.FilterSettings)
    with pytest.raises(RecipeError, match="give one of them"):
        recipe.parse({"model": checkpoints["clip"], "scorer": "a:b", "min_score": 0.3}, filtering.FilterSettings)


def test_captions_below_the_bound_go_and_scores_are_remembered(checkpoints, tmp_path, monkeypatch) -> None:
    checkpoint = shutil.copytree(checkpoints["clip"], tmp_path / "clip")
    pictures(tmp_path / "s", 3)
    rows = [{"image": f"{n}.png", "captions": CAPTIONS} for n in range(3)]
    source = tmp_path / "s/rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score = caption_scores.scorer(str(checkpoint))
    scores = [score(str(tmp_path / f"s/images/{n}.png"), CAPTIONS) for n in range(3)]
    bound = sorted(value for row in scores for value in row)[4]
    steps = {"filter": {"model": str(checkpoint), "min_score": bound - 1e-6}}
    run(source, tmp_path / "out", steps=steps, max_lost_share=1)
    found = {sample.extra["source"]: sample.captions for sample in Dataset.open(tmp_path / "out")}
    assert sum(len(captions) for captions in found.values()) == 5
    for n, row in enumerate(scores):
        left = tuple(text for text, value in zip(CAPTIONS, row, strict=True) if value >= bound - 1e-6)
        assert found.get(f"images/{n}.png", ()) == left

    def never(checkpoint: str) -> Scorer:
        def ask(path: str, captions: object) -> list[float]:
            raise AssertionError("asked again")

        return ask

    monkeypatch.setattr(caption_scores, "scorer", never)
    changed = {"filter": steps["filter"] | {"min_side_px": 1}}
    again = run(source, tmp_path / "out", steps=changed, max_lost_share=1)
    assert again.samples == len(found)

    def asked(checkpoint: str) -> Scorer:
        raise CheckpointError("another model", "")

    monkeypatch.setattr(caption_scores, "scorer", asked)
    find("clip").tiny(CAPTIONS, task="embed", seed=1).save(checkpoint)  # trained further, say
    with pytest.raises(CheckpointError, match="another model"):
        run(source, tmp_path / "out", steps=changed, max_lost_share=1)


def test_a_rehearsal_opens_no_checkpoint(tmp_path) -> None:
    steps = {"filter": {"model": "openai/clip-vit-base-patch32", "min_score": 0.3, "min_words": 2}}
    whole = recipe.parse({"data": {"source": str(tmp_path), "steps": steps}, "model": {"checkpoint": "x"}}, Recipe)
    filter = rehearsal(whole, tmp_path).data.steps.chosen()["filter"]
    assert (filter.model, filter.min_words) == ("", 2)


def test_the_verb_and_the_stage_prepare_hand_the_model_in(checkpoints, tmp_path, monkeypatch) -> None:
    pictures(tmp_path / "s", 3)
    source = tmp_path / "s/rows.jsonl"
    source.write_text("".join(json.dumps({"image": f"{n}.png", "captions": CAPTIONS}) + "\n" for n in range(3)))
    opened: list[str] = []

    def scorer(checkpoint: str) -> Scorer:
        opened.append(checkpoint)
        return lambda path, captions: [float(caption == CAPTIONS[0]) for caption in captions]

    monkeypatch.setattr(caption_scores, "scorer", scorer)
    step = {"model": checkpoints["clip"], "min_score": 0.5}
    prepare(source, tmp_path / "verb", overrides=[f"data.steps.filter.{key}={value}" for key, value in step.items()])
    table = {
        "data": {"source": str(source), "steps": {"filter": step}},
        "model": {"checkpoint": checkpoints["captioner"]},
    }
    Run(recipe.parse(table, Recipe), tmp_path / "run")(("prepare",))
    for folder in (tmp_path / "verb", tmp_path / "run/dataset"):
        assert {sample.captions for sample in Dataset.open(folder)} == {(CAPTIONS[0],)}
    assert opened == [checkpoints["clip"]] * 2
