"""The fast paths against slow obvious ones, over random captions."""

import math
from collections import Counter

import numpy as np
import pytest

from cutline.metrics.baselines import constant_caption, derangement
from cutline.metrics.scorer import score
from cutline.metrics.text import ngrams
from cutline.metrics.text.tokenize import Pretokenized

Words = list[str]


def random_set(seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Few words, so that n-grams repeat; empty captions, unknown words and very long captions among them."""
    random = np.random.default_rng(seed)
    words = np.array(["a", "b", "c", "d", "e", "f", "ä", "x\u00a0y"])

    def caption(extra: bool) -> str:
        length = int(random.integers(0, 12)) if random.random() < 0.9 else int(random.integers(60, 90))
        chosen = random.choice(words[: int(random.integers(2, 9))], length).tolist()
        if extra and random.random() < 0.3:
            chosen += ["new", "new", "other"]
        return " ".join(chosen)

    images = [f"i{number}" for number in range(int(random.integers(1, 40)))]
    references = {name: [caption(False) for _ in range(int(random.integers(1, 6)))] for name in images}
    return {name: caption(True) for name in images}, references


def grams(words: Words, k: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + k]) for i in range(len(words) - k + 1))


def slow_bleu(pairs: list[tuple[Words, list[Words]]]) -> list[float]:
    closest = sum(min((abs(len(r) - len(c)), len(r)) for r in refs)[1] for c, refs in pairs)
    length = sum(len(c) for c, _ in pairs)
    product, values = 1.0, []
    for k in range(1, 5):
        right = sum(
            min(count, max(grams(r, k)[gram] for r in refs)) for c, refs in pairs for gram, count in grams(c, k).items()
        )
        product *= (right + 1e-15) / (sum(max(0, len(c) - k + 1) for c, _ in pairs) + 1e-9)
        values.append(product ** (1 / k))
    brevity = (length + 1e-15) / (closest + 1e-9)
    return [value * math.exp(1 - 1 / brevity) if brevity < 1 else value for value in values]


def slow_common(a: Words, b: Words) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def slow_rouge(candidate: str, references: list[str]) -> float:
    c = candidate.split(" ")
    common = [(slow_common(c, r.split(" ")), len(r.split(" "))) for r in references]
    precision, recall = max(n / len(c) for n, _ in common), max(n / length for n, length in common)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision and recall else 0.0


def slow_cider(pairs: list[tuple[Words, list[Words]]], clipped: bool) -> list[float]:
    frequency: Counter[tuple[str, ...]] = Counter()
    for _, refs in pairs:
        frequency.update({gram for r in refs for k in range(1, 5) for gram in grams(r, k)})

    def vector(words: Words, k: int) -> dict[tuple[str, ...], float]:
        return {g: n * (math.log(len(pairs)) - math.log(max(1, frequency[g]))) for g, n in grams(words, k).items()}

    values = []
    for c, refs in pairs:
        total = 0.0
        for r in refs:
            for k in range(1, 5):
                mine, theirs = vector(c, k), vector(r, k)
                dot = sum((min(w, theirs[g]) if clipped else w) * theirs[g] for g, w in mine.items() if g in theirs)
                norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                penalty = math.exp(-((max(0, len(c) - 1) - max(0, len(r) - 1)) ** 2) / 72) if clipped else 1
                total += dot / norm * penalty if norm else 0
        values.append(total / 4 / len(refs) * 10)
    return values


@pytest.mark.parametrize("seed", range(25))
def test_ngram_metrics_equal_slow_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 5 == 0:  # the way for vocabularies so large that key and position don't fit into 63 bits
        monkeypatch.setattr(ngrams, "_FREE_BITS", 5)
    candidates, references = random_set(seed)
    found = score(
        candidates,
        references,
        metrics=("bleu", "rouge_l", "cider", "cider_original"),
        resamples=0,
        tokenizer=Pretokenized(),
    )
    pairs = [(candidates[name].split(), [text.split() for text in texts]) for name, texts in references.items()]
    bleu, bleus = slow_bleu(pairs), [slow_bleu([pair]) for pair in pairs]
    for k in range(4):
        assert found[f"bleu{k + 1}"].value == pytest.approx(bleu[k], rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(found[f"bleu{k + 1}"].per_image, [b[k] for b in bleus], atol=1e-12)
    rouge = [slow_rouge(candidates[name], texts) for name, texts in references.items()]
    np.testing.assert_allclose(found["rouge_l"].per_image, rouge, atol=1e-12)
    for name, clipped in (("cider", True), ("cider_original", False)):
        values = slow_cider(pairs, clipped)
        np.testing.assert_allclose(found[name].per_image, values, atol=1e-9)
        assert found[name].value == pytest.approx(float(np.mean(values)), abs=1e-9)


def test_many_references_and_words_are_counted_whole() -> None:
    """More than the 255 that fit into the byte that is used where there are fewer."""
    references = {"a": [f"x y{number % 7} z" for number in range(300)], "b": [" ".join(["w"] * 300 + ["v"])]}
    candidates = {"a": "x y3 z z", "b": " ".join(["w"] * 280 + ["u"])}
    metrics = ("bleu", "rouge_l", "cider", "cider_original")
    found = score(candidates, references, metrics, resamples=0, tokenizer=Pretokenized())
    pairs = [(candidates[name].split(), [text.split() for text in texts]) for name, texts in references.items()]
    assert [found[f"bleu{k}"].value for k in (1, 2, 3, 4)] == pytest.approx(slow_bleu(pairs), rel=1e-9)
    np.testing.assert_allclose(found["cider"].per_image, slow_cider(pairs, True), atol=1e-9)
    np.testing.assert_allclose(found["cider_original"].per_image, slow_cider(pairs, False), atol=1e-9)
    rouge = [slow_rouge(candidates[name], texts) for name, texts in references.items()]
    np.testing.assert_allclose(found["rouge_l"].per_image, rouge, atol=1e-12)


def test_constant_caption_is_the_best_of_all() -> None:
    random = np.random.default_rng(3)
    words = ["a", "dog", "cat", "runs", "sits", "on", "the", "grass", "street"]
    training = [[" ".join(random.choice(words, 6)) for _ in range(3)] for _ in range(40)]
    references = {str(number): texts for number, texts in enumerate(training)}

    def value(caption: str) -> float:
        captions = dict.fromkeys(references, caption)
        return score(captions, references, metrics=("cider",), resamples=0)["cider"].value

    best = max(value(text) for texts in training for text in texts)
    assert value(constant_caption(training)) == pytest.approx(best)


@pytest.mark.parametrize("groups", [list(range(7)), [0, 0, 0, 1, 1, 2], [0, 0, 1, 1], ["a", "b"]])
def test_derangement_leaves_no_image_in_its_group(groups: list[int | str]) -> None:
    for seed in range(10):
        other = derangement(groups, seed)
        assert other is not None
        assert sorted(other) == list(range(len(groups)))
        assert all(groups[mine] != groups[giver] for mine, giver in enumerate(other))


def test_derangement_needs_groups_that_fit() -> None:
    assert derangement([0, 0, 0, 1], 0) is None
    assert derangement(["only"], 0) is None
