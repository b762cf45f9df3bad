"""Metrics that look through a model: against slow, obvious computations on miniatures of the real classes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, RobertaModel

from cutline.core.config import parse, to_toml
from cutline.core.errors import RecipeError, ScoreError
from cutline.metrics.encoders import encoders, tiny_encoders
from cutline.metrics.encoders.encoder_settings import EncoderSettings
from cutline.metrics.evaluation import evaluate
from cutline.metrics.fgd import Cloud, frechet
from cutline.metrics.scorer import Scorer, score
from cutline.metrics.settings import ScoreSettings
from tests.conftest import drawing

WORDS = ["a", "the", "dog", "cat", "runs", "sleeps", "on", "green", "grass", "red", "table", "two"]
CHANCE = np.random.default_rng(0)
REFERENCES = {f"{n}": [" ".join(CHANCE.choice(WORDS, 5)) for _ in range(1 + n % 3)] for n in range(10)}
PREDICTIONS = {name: " ".join(CHANCE.choice(WORDS, 2 + int(name) % 5)) for name in REFERENCES} | {"4": ""}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """Kind → a saved checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for kind in ("clip", "bert", "roberta"):
        for part in filter(None, tiny_encoders.build(kind)):
            part.save_pretrained(folder / kind)
    return {kind: str(folder / kind) for kind in ("clip", "bert", "roberta")}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("images")
    for name in REFERENCES:
        drawing(int(name), (40, 50)).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in REFERENCES}


def test_clipscore_equals_the_model_asked_pair_by_pair(checkpoints, images) -> None:
    from PIL import Image

    model = CLIPModel.from_pretrained(checkpoints["clip"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["clip"])
    processor = AutoImageProcessor.from_pretrained(checkpoints["clip"], backend="pil")

    def text(caption: str) -> torch.Tensor:
        return model.get_text_features(**tokenizer(f"A photo depicts {caption}", return_tensors="pt")).pooler_output[0]

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return max(0.0, float(a @ b / a.norm() / b.norm()))

    expected = []
    with torch.no_grad():
        for name, caption in PREDICTIONS.items():
            pixels = processor(Image.open(images[name]), return_tensors="pt")
            said, seen = text(caption), model.get_image_features(**pixels).pooler_output[0]
            image = 2.5 * cosine(said, seen) if caption else 0.0
            reference = max(cosine(said, text(other)) for other in REFERENCES[name])
            expected.append((image, 2 * image * reference / (image + reference) if image else 0.0))
    assert sum(value > 0 for value, _ in expected) > 5
    options = {"clipscore": {"model": checkpoints["clip"], "batch_size": 3}}
    found = score(PREDICTIONS, REFERENCES, ["clipscore"], options=options, images=images)
    both = np.stack([found[name].per_image for name in ("clipscore", "refclipscore")], axis=1)
    np.testing.assert_allclose(both, expected, atol=1e-5)
    assert found["clipscore"].value == pytest.approx(np.mean(expected, axis=0)[0], abs=1e-5)
    assert "|model:clip@" in found["clipscore"].signature
    assert "|dtype:float32|" in found["clipscore"].signature
    assert "empty:1" in found["clipscore"].signature


def test_images_and_texts_are_encoded_once(checkpoints, images, monkeypatch) -> None:
    encoders.clip.cache_clear()
    counts = {"get_text_features": 0, "get_image_features": 0}
    for name in counts:
        original = getattr(CLIPModel, name)

        def counted(self, *args, name=name, original=original, **kwargs):
            counts[name] += len(next(iter(kwargs.values())))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(CLIPModel, name, counted)
    settings = ScoreSettings.model_validate(
        {"metrics": ("clipscore",), "resamples": 0, "clipscore": {"model": checkpoints["clip"]}}
    )
    found = evaluate(PREDICTIONS, REFERENCES, ["a dog", "a cat"], settings=settings, images=images)
    assert len(found.baselines) == 3  # constant, another image's, and people's, on some of the images only
    different = {text for texts in REFERENCES.values() for text in texts} | set(PREDICTIONS.values()) | {"a dog"}
    assert counts == {"get_image_features": 10, "get_text_features": len(different)}


def test_what_clipscore_lacks_is_said(checkpoints, images, tmp_path) -> None:
    options = {"clipscore": {"model": "tiny"}}
    with pytest.raises(ScoreError, match=r"10 of 10 were not found: 0, 1.*--images FOLDER"):
        score(PREDICTIONS, REFERENCES, ["clipscore"], options=options)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ScoreError, match=r"1 images can't be opened: .*broken\.png \(not_an_image"):
        score(PREDICTIONS, REFERENCES, ["clipscore"], options=options, images=images | {"2": tmp_path / "broken.png"})
    with pytest.raises(ScoreError, match=r"nothing/here could not be opened.*--set clipscore\.model"):
        score(PREDICTIONS, REFERENCES, ["clipscore"], options={"clipscore": {"model": "nothing/here"}}, images=images)
    options = {"clipscore": {"model": checkpoints["bert"]}}
    with pytest.raises(ScoreError, match="no common embedding space"):
        score(PREDICTIONS, REFERENCES, ["clipscore"], options=options, images=images)


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_bertscore_equals_a_loop_over_tokens(checkpoints, idf: bool, layer: int) -> None:
    model = RobertaModel.from_pretrained(checkpoints["roberta"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["roberta"])
    all_references = [" " + text for texts in REFERENCES.values() for text in texts]
    seen = [set(tokenizer(text)["input_ids"]) for text in all_references]

    def weigh(token: int) -> float:
        if token in (tokenizer.cls_token_id, tokenizer.sep_token_id):
            return 0.0
        return math.log((len(seen) + 1) / (sum(token in row for row in seen) + 1)) if idf else 1.0

    def vectors(text: str) -> tuple[list[float], torch.Tensor]:
        rows = tokenizer(" " + text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**rows, output_hidden_states=True).hidden_states[layer][0]
        return [weigh(token) for token in rows["input_ids"][0].tolist()], hidden / hidden.norm(dim=-1, keepdim=True)

    expected = []
    for name, caption in PREDICTIONS.items():
        found = [(0.0, 0.0, 0.0)]
        for other in REFERENCES[name] if caption else ():
            (weights_a, a), (weights_b, b) = vectors(caption), vectors(other)
            precision = sum(w * float(max(x @ y for y in b)) for w, x in zip(weights_a, a, strict=True))
            recall = sum(w * float(max(x @ y for y in a)) for w, x in zip(weights_b, b, strict=True))
            precision, recall = precision / sum(weights_a), recall / sum(weights_b)
            found.append((precision, recall, 2 * precision * recall / (precision + recall)))
        expected.append(np.max(found, axis=0))
    options = {"bertscore": {"model": checkpoints["roberta"], "layer": layer, "idf": idf, "batch_size": 4}}
    result = score(PREDICTIONS, REFERENCES, ["bertscore"], options=options)
    both = np.stack([result[f"bertscore_{part}"].per_image for part in ("precision", "recall", "f1")], axis=1)
    np.testing.assert_allclose(both, expected, atol=2e-5)
    assert f"|layer:{layer}|idf:{'references(19)' if idf else 'no'}|" in result["bertscore_f1"].signature


def test_the_layer_must_be_known_and_there(checkpoints) -> None:
    with pytest.raises(ScoreError, match=r"there is no default layer for .*roberta"):
        score(PREDICTIONS, REFERENCES, ["bertscore"], options={"bertscore": {"model": checkpoints["roberta"]}})
    options = {"bertscore": {"model": checkpoints["roberta"], "layer": 9}}
    with pytest.raises(ScoreError, match="has 3 layers, not 9"):
        score(PREDICTIONS, REFERENCES, ["bertscore"], options=options)


def test_long_texts_are_cut_at_what_the_model_reads(checkpoints) -> None:
    options = {"bertscore": {"model": checkpoints["roberta"], "layer": 2}, "fgd": {"model": checkpoints["bert"]}}
    found = score({"1": "dog " * 300}, {"1": ["a cat"]}, ["bertscore", "fgd"], options=options)
    assert 0 < found["bertscore_f1"].value < 1


def test_fgd_is_the_frechet_distance_of_the_clouds(checkpoints) -> None:
    encoder = encoders.SentenceEncoder("fgd", EncoderSettings(model=checkpoints["bert"]))
    a = encoder.texts(list(PREDICTIONS.values())).astype(np.float64)
    b = encoder.texts([text for texts in REFERENCES.values() for text in texts]).astype(np.float64)
    apart, c, d = a.mean(0) - b.mean(0), np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.abs(np.linalg.eigvals(c @ d).real)).sum()
    expected = apart @ apart + np.trace(c) + np.trace(d) - 2 * root
    options = {"fgd": {"model": checkpoints["bert"]}}
    found = score(PREDICTIONS, REFERENCES, ["fgd"], options=options)["fgd"]
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.low < found.value < found.high
    names = list(PREDICTIONS)
    turned = {name: PREDICTIONS[other] for name, other in zip(names, names[1:] + names[:1], strict=True)}
    assert score(turned, REFERENCES, ["fgd"], options=options)["fgd"].value == pytest.approx(found.value, abs=1e-9)
    assert "blind_to:which_image" in found.signature
    assert any("which image" in text for text in Scorer(REFERENCES, ["fgd"], options=options).warnings())


def test_fgd_of_sentence_vectors_is_pooled_over_words_only(checkpoints) -> None:
    settings = EncoderSettings(model=checkpoints["bert"])
    together = encoders.SentenceEncoder("fgd", settings).texts(["a dog", "a dog runs on the green grass"])
    alone = encoders.SentenceEncoder("fgd", settings).texts(["a dog"])
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_the_influence_is_the_derivative_by_an_images_weight() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(60, 4)) * [1, 2, 3, 4], random.normal(size=(50, 4)) + 1
    distance, of_a, of_b = frechet(Cloud(a), Cloud(b))
    assert abs(of_a.mean()) < 1e-9
    assert abs(of_b.mean()) < 1e-9
    # 400 copies of the data, and one vector once more
    many = 400
    for extra in (0, 7):
        more = frechet(Cloud(np.concatenate([*[a] * many, a[extra : extra + 1]])), Cloud(b))[0]
        base = frechet(Cloud(np.concatenate([a] * many)), Cloud(b))[0]
        assert (more - base) * many * len(a) == pytest.approx(of_a[extra], rel=0.02, abs=0.02)
    assert frechet(Cloud(b), Cloud(a))[0] == pytest.approx(distance)
    assert frechet(Cloud(a), Cloud(a.copy()))[0] == pytest.approx(0, abs=1e-9)


def test_a_recipe_says_how_metrics_are_set() -> None:
    table = {"metrics": ["cider", "clipscore"], "clipscore": {"dtype": "bfloat16"}}
    settings = parse(table, ScoreSettings)
    assert settings.options["clipscore"].model_dump()["model"] == "openai/clip-vit-base-patch32"
    assert "[clipscore]" in to_toml(settings)  # the resolved recipe says what will be used
    assert "[bertscore]" not in to_toml(settings)
    with pytest.raises(RecipeError, match=r"unknown key clipscore\.modle.*Did you mean clipscore\.model"):
        parse({"clipscore": {"modle": "x"}}, ScoreSettings)
    with pytest.raises(RecipeError, match=r"unknown section clipscroe.*Did you mean clipscore"):
        parse({"clipscroe": {"model": "x"}}, ScoreSettings)
    rehearsed = settings.tiny()
    assert rehearsed.options["clipscore"].model_dump()["model"] == "tiny"
    assert rehearsed.resamples == 50
    with pytest.raises(ScoreError, match="There are no options for cider"):
        score(PREDICTIONS, REFERENCES, ["cider"], options={"cider": {}})


def test_at_the_command_line(images, tmp_path, capsys) -> None:
    from cutline.cli.compare import compare as compare_command
    from cutline.cli.score import score as score_command

    made, references = tmp_path / "predictions.json", tmp_path / "references.json"
    made.write_text(json.dumps({f"{name}.png": text for name, text in PREDICTIONS.items()}))
    references.write_text(json.dumps({f"{name}.png": texts for name, texts in REFERENCES.items()}))
    folder = Path(images["0"]).parent
    changes = ["clipscore.model=tiny", "seed=3"]
    chosen = "clipscore,length"
    score_command(made, references, metrics=chosen, resamples=10, as_json=True, images=folder, overrides=changes)
    found = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["scores"]}
    assert found["clipscore"]["value"] > 0
    other = tmp_path / "other.json"
    other.write_text(json.dumps({f"{name}.png": "a dog" for name in PREDICTIONS}))
    compare_command(
        [made, other],
        references,
        metrics=chosen,
        resamples=20,
        by="clipscore",
        most=1,
        as_json=True,
        images=folder,
        overrides=changes,
    )
    compared = json.loads(capsys.readouterr().out)
    assert {row["metric"] for row in compared["differences"]} >= {"clipscore", "refclipscore"}
    assert {row["metric"] for row in compared["moved"]} == {"clipscore"}
