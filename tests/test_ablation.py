"""The context ablation: what is put into the prompts, what the tests come to, and going on after a kill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cutline.ablation.ablate import WITH, judge, weigh
from cutline.ablation.contexts import changed, named, stepped
from cutline.caption.files import read
from cutline.cli.check import probe
from cutline.core import config as recipe
from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.core.records import Prediction, Sample
from cutline.data.inspect.contexts import Contexts, names_in
from cutline.data.steps.context import ContextSettings as ContextSettings
from cutline.families.open import find
from cutline.images import shapes
from cutline.metrics.baselines import CONTEXT
from cutline.metrics.settings import ScoreSettings
from cutline.run import run
from cutline.run.recipe import Recipe

PEOPLE = [f"{first} {last}" for first in ("Ann", "Bo", "Cy", "Di", "Eve") for last in ("Berg", "Lund", "Moe", "Vik")]
TOWNS = ["Oslo", "Rome", "Lima", "Kyiv"]
SETTINGS = ScoreSettings(metrics=("cider", "bleu4"), resamples=200)


def news(kind: str) -> list[Sample]:
    """Twenty photographs with a person and a town, which only the context knows."""
    found = []
    for number, person in enumerate(PEOPLE):
        town = TOWNS[number % 4]
        caption = f"{person} speaks to reporters beside a red car in {town}"
        other, place = PEOPLE[(number * 7 + 3) % 20], TOWNS[(number // 4 + 1) % 4]
        context = {
            "helps": f"A summit in {town}: {person} and {other} meet Prime Minister Kim",
            "irrelevant": f"A summit in {place}: {other} meets Prime Minister Kim",
            "leaks": f"{person}, {town}",
        }[kind]
        found.append(
            Sample(
                id=str(number),
                image="",
                captions=(caption,),
                split="test",
                group=f"g{number // 2}",
                context={"headline": context},
            )
        )
    return found


def readers(samples: list[Sample]) -> dict[str, dict[str, Prediction]]:
    """What a model would write that sees the car, and takes the first names that its prompt has for the right ones."""

    def write(sample: Sample) -> Prediction:
        text = sample.context.get("headline", "")
        person = min((name for name in PEOPLE if name in text), key=text.index, default="Ann Berg")
        town = next((name for name in TOWNS if name in text), "Oslo")
        return Prediction(id=sample.id, caption=f"{person} speaks to reporters beside a red car in {town}")

    oracle = named(names_in)
    conditions = {WITH: samples} | {
        name: changed(name, samples, oracle, 0) for name in ("without", "shuffled", "oracle")
    }
    return {name: {sample.id: write(sample) for sample in some} for name, some in conditions.items()}


@pytest.mark.parametrize(
    ("kind", "verdict", "audited"),
    [("helps", "helps", "related"), ("irrelevant", "no gain", "unrelated"), ("leaks", "leaks", "leaks")],
)
def test_context_that_helps_that_is_irrelevant_and_that_leaks_are_told_apart(kind, verdict, audited):
    samples = news(kind)
    found = weigh(readers(samples), samples, SETTINGS, Contexts())
    assert (found.verdict, found.audit.whole.relation) == (verdict, audited), found.summary
    gains = {(row.a, row.b): row for row in found.differences if row.metric == "cider"}
    assert set(gains) == {("without", WITH), ("shuffled", WITH), (CONTEXT, WITH), (WITH, "oracle")}
    gain = gains["without", WITH]
    assert (gain.low > 0) is (kind != "irrelevant")
    assert gain.difference == pytest.approx(found.scores[WITH]["cider"].value - found.scores["without"]["cider"].value)
    assert gains[WITH, "oracle"].difference == pytest.approx(0, abs=1e-9) if kind != "irrelevant" else True
    assert f"p = {gain.p_randomisation:.3f}" in found.summary
    json.dumps(found.to_json())


def test_context_whose_presence_alone_helps_is_not_said_to_help():
    samples = news("irrelevant")
    made = readers(samples)
    made["without"] = {name: Prediction(id=name, caption="") for name in made["without"]}
    assert weigh(made, samples, SETTINGS, Contexts()).verdict == "its presence helps"


def test_what_is_put_into_the_prompts():
    samples = news("helps")
    assert all(sample.context == {} for sample in changed("without", samples, named(names_in), 0))
    others = changed("shuffled", samples, named(names_in), 0)
    owners = {sample.context["headline"]: sample for sample in samples}
    assert all(
        owners[other.context["headline"]].group != sample.group for sample, other in zip(samples, others, strict=True)
    )
    assert sorted(other.context["headline"] for other in others) == sorted(owners)
    assert others != changed("shuffled", samples, named(names_in), 1)
    assert changed("oracle", samples, named(names_in), 0)[0].context == {"headline": "Ann Berg; Oslo"}
    one_group = [replace(sample, group="g") for sample in samples]
    with pytest.raises(DataError, match="more than half"):
        changed("shuffled", one_group, named(names_in), 0)


def test_an_oracle_of_the_context_step_has_its_form_and_says_what_it_is():
    sample = Sample(
        id="1",
        image="",
        captions=("The Olympics open on 27 July 2012.",),
        context={"context": "[world]", "desk": "Sport"},
    )
    given = stepped(ContextSettings(model=""))(sample)
    assert given.context == {"desk": "Sport", "context": "[2012-07-27 | EVENT=Olympics]"}
    assert {found["source"] for found in given.extra["context_sources"].values()} == {"oracle (caption)"}


def test_nothing_tested_is_no_gain():
    audit = Contexts()
    audit.add(news("helps")[0])
    facts = audit.facts()
    assert facts is not None
    assert judge([], facts)[0] == "no gain"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A recipe that captions drawn pictures with context, by a random model."""
    folder = tmp_path_factory.mktemp("ablation")
    source = shapes.draw(folder / "shapes", train=2, val=0, test=10)
    family = find("vision_prefix").tiny(["a red square above a blue circle", "test"])
    family.save(folder / "model")
    table = {
        "data": {"source": str(source), "columns": {"context": ["split"]}},
        "model": {"checkpoint": str(folder / "model"), "prompt": "{context}"},
        "generate": {"max_new_tokens": 4, "batch_size": 2},
        "score": {"resamples": 20, "metrics": ["cider"]},
        "ablation": {},
    }

    def make(**changes):
        return recipe.parse(table | changes, Recipe)

    return make


def test_a_run_ablates_goes_on_after_a_kill_and_passes_over_what_is_finished(asked, tmp_path, monkeypatch, messages):
    whole = tmp_path / "whole"
    run.Run(asked(), whole)(("prepare", "caption", "ablate"))
    result = json.loads((whole / "ablation/ablation.json").read_text())
    assert set(result["scores"]) == {WITH, "without", "shuffled", "oracle", CONTEXT}
    assert result["images"] == 10
    assert "ablate: " + result["verdict"] in messages()
    monkeypatch.setattr("cutline.caption.job.caption", None)  # nothing is captioned again
    run.Run(asked(), whole)(("prepare", "caption", "ablate"))
    assert "ablate: already done" in messages()
    run.Run(asked(score={"resamples": 20, "metrics": ["bleu4"]}), whole)(("ablate",))
    again = json.loads((whole / "ablation/ablation.json").read_text())
    assert again["by"] == "bleu4"
    monkeypatch.undo()

    broken = tmp_path / "broken"
    from cutline.caption import caption as captions

    count = 0

    def killed(*arguments, **how):
        nonlocal count
        for batch in captions.caption(*arguments, **how):
            count += 1
            if count == 13:  # 5 batches of the caption stage, 5 of the first condition, 3 of the second
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr("cutline.caption.job.caption", killed)
    with pytest.raises(KeyboardInterrupt):
        run.Run(asked(), broken)(("prepare", "caption", "ablate"))
    assert not (broken / "ablation/ablation.json").exists()
    assert 0 < len(list(jsonl.read(broken / "ablation/shuffled.jsonl"))) < 10
    run.Run(asked(), broken)(("ablate",))
    for name in ("without", "shuffled", "oracle"):
        assert read(broken / f"ablation/{name}.jsonl") == read(whole / f"ablation/{name}.jsonl")
    assert json.loads((broken / "ablation/ablation.json").read_text()) == result


def test_what_can_not_be_ablated_is_said_before_anything_is_captioned(asked, tmp_path):
    whole = asked()
    source, checkpoint = whole.data.source, whole.model.checkpoint
    one_group = {"source": source, "columns": {"context": ["split"], "group": "split"}}
    wrong = {
        "no image has context": asked(data={"source": source}),
        "the prompt has no context": asked(model={"checkpoint": checkpoint}),  # the checkpoint's own
        "more than half": asked(data=one_group),
        "There is no spaCy model": asked(ablation={"names": "no_such_pipeline"}),
        "no image has a caption to score": asked(
            data={"source": str(Path(source).parent / "images"), "format": "sidecar", "captions_required": False}
        ),
    }
    for number, (problem, made) in enumerate(wrong.items()):
        folder = tmp_path / str(number)
        with pytest.raises(CutlineError, match=problem):
            run.Run(made, folder)(("prepare", "caption", "ablate"))
        assert (folder / "dataset/dataset.json").exists()
        assert not (folder / "predictions.jsonl").exists()
    with pytest.raises(CutlineError, match="no image has context"):
        probe(run.Run(asked(data={"source": source}), tmp_path / "check"))
    with pytest.raises(CutlineError, match=r"\[model\] prompt has no {context}"):
        asked(model={"checkpoint": checkpoint, "prompt": "Describe."})  # before anything is done


def test_a_split_without_captions_and_a_dropped_context_that_is_not_there_are_known_before_training(asked, tmp_path):
    source = asked().data.source
    changes = {"train": {"max_steps": 1, "drop_context": 0.5, "val_images": 2}, "generate": {"split": "train"}}
    with pytest.raises(CutlineError, match="no split 'val' to choose the best checkpoint by"):
        run.Run(asked(**changes), tmp_path / "a")()
    divided = {"source": source, "rename_splits": {"train": "", "test": ""}, "val": 0.3, "test": 0}
    with pytest.raises(CutlineError, match=r"drop_context = 0.5: no training image has context"):
        run.Run(asked(**changes, data=divided, ablation=None), tmp_path / "b")()
    assert not (tmp_path / "b/train").exists()
