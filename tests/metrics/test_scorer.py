"""score() and Scorer: ids, empties, signatures, choice of metrics."""

import subprocess
import sys

import pytest

from cutline.core.config import parse
from cutline.core.errors import RecipeError, ScoreError, ScoreWarning
from cutline.core.records import Prediction
from cutline.metrics import find
from cutline.metrics.hygiene import loops
from cutline.metrics.scorer import Scorer, score
from cutline.metrics.settings import DEFAULT, ScoreSettings
from tests.metrics import score_table

REFERENCES = {"b": ["a dog runs", "the dog runs"], "a": ["a red bike"], "c": ["two cats", "cats", "some cats sit"]}
PREDICTIONS = {"a": "a red bike", "b": "a dog runs", "c": "a dog"}
#: METEOR's index takes 40 s to build, where its data is installed.
USUAL = [name for name in DEFAULT if name != "meteor"]


def test_scores_stand_in_the_order_of_the_references() -> None:
    found = score(PREDICTIONS, REFERENCES, metrics=["exact_match"])["exact_match"]
    assert found.per_image == (1.0, 1.0, 0.0)
    assert found.n == 3
    assert found.low <= found.value <= found.high


def test_names_of_metrics_and_of_single_scores() -> None:
    assert set(score(PREDICTIONS, REFERENCES, metrics=["bleu4", "rouge_l"])) == {"bleu4", "rouge_l"}
    assert set(score(PREDICTIONS, REFERENCES, metrics=["bleu"])) == {"bleu1", "bleu2", "bleu3", "bleu4"}
    with pytest.raises(ScoreError, match="Did you mean cider"):
        score(PREDICTIONS, REFERENCES, metrics=["cidre"])


def test_missing_and_extra_ids_are_counted_and_listed() -> None:
    with pytest.raises(ScoreError, match=r"2 of 3 images have no prediction: b, c"):
        score({"a": "x"}, REFERENCES)
    with pytest.raises(ScoreError, match=r"1 of 4 predictions have no reference: z"):
        score({**PREDICTIONS, "z": "x"}, REFERENCES)
    with pytest.raises(ScoreError, match="no reference"):  # allowing missing ones doesn't allow extra ones
        score({"z": "x"}, REFERENCES, allow_missing=True)
    found = score({"a": "a red bike"}, REFERENCES, metrics=["exact_match"], allow_missing=True)["exact_match"]
    assert found.value == pytest.approx(1 / 3)
    assert "empty:2" in found.signature


def test_no_captions_are_errors() -> None:
    for wrong in ({}, {"a": list[str]()}, {"a": "a string"}):
        with pytest.raises(ScoreError):
            score(dict.fromkeys(wrong, "x"), wrong)


def test_failed_predictions_count_as_empty_and_zero() -> None:
    predictions = {
        "a": Prediction(id="a", caption="a red bike", finished=True),
        "b": Prediction(id="b", status="failed", error="truncated"),
        "c": Prediction(id="c", caption="cats cats cats", finished=False),
    }
    found = score(predictions, REFERENCES, USUAL)
    assert found["bleu1"].per_image[0] == pytest.approx(0, abs=1e-6)
    assert found["cider"].per_image[0] == 0
    assert found["rouge_l"].per_image[0] == 0
    assert found["empty"].value == pytest.approx(1 / 3)
    assert found["unfinished"].value == pytest.approx(1 / 2)  # of those that have a caption
    assert list(found["repeated"].per_image) == [0.0, 0.0, 1.0]
    assert found["cider"].signature == (
        f"cider|v:1|tok:{Scorer(REFERENCES, USUAL).references.tokenizer.name}"
        "|case:lower|refs:1-3|df:references(3)|sigma:6|images:3|empty:1"
    )


def test_unknown_finish_is_left_out() -> None:
    assert "unfinished" not in score(PREDICTIONS, REFERENCES, USUAL)
    assert "unfinished" not in Scorer(REFERENCES, USUAL).values(PREDICTIONS)


def test_values_are_the_scores_without_intervals() -> None:
    scorer = Scorer(REFERENCES, USUAL)
    assert scorer.values(PREDICTIONS) == {name: found.value for name, found in scorer.score(PREDICTIONS).items()}
    assert scorer.values(PREDICTIONS) == scorer.values(PREDICTIONS)


def test_lengths() -> None:
    found = Scorer(REFERENCES, ["length"]).values(PREDICTIONS)
    assert found["length"] == pytest.approx(8 / 3)
    assert found["length_sd"] == pytest.approx((2 / 9) ** 0.5)
    assert found["length_ratio"] == pytest.approx(8 / (3 + 3 + 2))


def test_few_images_warn() -> None:
    assert any("fewer than 100 images" in text for text in Scorer(REFERENCES, USUAL).warnings())
    with pytest.warns(ScoreWarning, match="fewer than 100 images"):
        score(dict.fromkeys(REFERENCES, "a dog"), REFERENCES, ["cider"], resamples=0)
    assert any("end a line" in text for text in Scorer({"a": ["x\u2028y"]}, USUAL).warnings())
    assert any(text.startswith("cider with one reference") for text in Scorer({"a": ["x"]}, USUAL).warnings())
    assert any("more than once" in text for text in Scorer({"a": ["x", "x"]}, USUAL).warnings())


@pytest.mark.parametrize("text", ["go go go", "a dog a dog a dog", "a man and a man and", "x the red car the red car"])
def test_loops_are_seen(text: str) -> None:
    assert loops(text.split())


@pytest.mark.parametrize("text", ["", "a dog next to a dog", "very very good", "a b a b c", "one two three"])
def test_ordinary_repetition_is_no_loop(text: str) -> None:
    assert not loops(text.split())


@pytest.mark.parametrize("name", list(find.available()))
def test_every_metric_keeps_the_protocol(name: str) -> None:
    metric = find.load(name)
    assert metric.__module__ == f"cutline.metrics.{name}"
    assert sys.modules[metric.__module__].__doc__
    for info in metric.scores:
        assert info.label
        assert info.label != info.name
        assert info.meaning[0].isupper()
        assert info.meaning.endswith(".")
        assert info.unit in ("", "share", "words")
        assert find.scores()[info.name] is info


def test_every_score_has_its_own_name_and_label() -> None:
    every = [info for name in find.available() for info in find.load(name).scores]
    assert len(every) == len({info.name for info in every}) == len({info.label for info in every}) == 62


def test_the_docs_list_every_score() -> None:
    _, shown, after = score_table.divide(score_table.PAGE.read_text(encoding="utf-8"))
    assert shown == score_table.table()
    assert after


def test_which_way_is_better() -> None:
    assert find.higher_is_better("cider")
    assert find.higher_is_better("clipscore")
    assert not find.higher_is_better("repeated")
    assert not find.higher_is_better("chair_i")
    with pytest.raises(ScoreError, match=r"bleu has several scores\. Choose one of them: bleu1"):
        find.higher_is_better("bleu")
    with pytest.raises(ScoreError, match="Neither higher nor lower values of length are better"):
        find.higher_is_better("length")


def test_listing_imports_nothing() -> None:
    code = (
        "import sys; from cutline.metrics import find; find.available();"
        "sys.exit(any(n in sys.modules for n in ('cutline.metrics.bleu', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_listing_scores_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cutline.metrics import find; find.scores();"
        "sys.exit(any(n in sys.modules for n in ('torch', 'transformers', 'numba', 'nltk', 'spacy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_know_the_metrics() -> None:
    assert parse({"metrics": ["bleu4"]}, ScoreSettings).metrics == ("bleu4",)
    with pytest.raises(RecipeError, match="Did you mean bleu"):
        parse({"metrics": ["blue"]}, ScoreSettings)


def test_a_tiny_run_leaves_meteor_out() -> None:
    settings = parse({"metrics": ["bleu4", "meteor"]}, ScoreSettings)
    assert settings.tiny().metrics == ("bleu4",)
    assert parse({"metrics": ["meteor"]}, ScoreSettings).tiny().metrics == ("cider",)
