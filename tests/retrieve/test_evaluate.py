"""Evaluation of retrieval against a slow and obvious one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.core.records import Sample
from cutline.families.blip import BlipMatcher
from cutline.families.blip_2 import Blip2Matcher
from cutline.families.clip import Clip
from cutline.families.common.matching import Matching
from cutline.families.common.retrieval import PlainMatching
from cutline.retrieve import recall
from cutline.retrieve.evaluate import evaluate
from cutline.retrieve.gallery import gather
from cutline.retrieve.rerank import nearest
from cutline.retrieve.settings import RetrieveSettings
from cutline.retrieve.verify import verify
from tests.conftest import drawing
from tests.retrieve.test_rerank import stirred

CAPTIONS = [
    ("a red circle above a blue square", "a green triangle"),
    ("a yellow square to the left of a red circle", "a dog", "a blue circle"),
    ("a green triangle",),  # another image's caption, too
    ("a red square below a white triangle", "a dog in the grass"),
    (),  # not in the gallery
    ("the quick brown fox jumps over the lazy dog", "a white fox"),
    *[
        (f"a {colour} {thing}", f"one {thing} that is {colour}")
        for colour in ("red", "pink")
        for thing in ("cat", "bus")
    ],
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for n, captions in enumerate(CAPTIONS):
        path = folder / f"{n}.png"
        drawing(3 if n == 5 else n).save(path)  # two images are the same picture
        made.append(
            Sample(id=f"i{n}", image=str(path), captions=captions, extra={"sha256": "s3" if n == 5 else f"s{n}"})
        )
    return made


@pytest.fixture(scope="module")
def blip():
    return stirred(BlipMatcher.tiny())


def run(family, samples, folder, exact=None, **settings):
    chosen = RetrieveSettings(resamples=20, **settings)
    return evaluate(family, samples, chosen, folder, {"rerank": chosen.rerank}, exact)


#: Scores nearer to each other than this are equal, or by accident so near that rounding decides about their order.
NEAR = 1e-5


def tables(family, samples):
    """Cosines and, where the family matches, cosine + matching logit: float64 [N, M], of all images and captions."""
    kept = [sample for sample in samples if sample.captions]
    texts = [text for sample in kept for text in sample.captions]
    with torch.no_grad():
        features = [family.encode_images(family.pixels([drawing(3 if s.id == "i5" else int(s.id[1:]))])) for s in kept]
        images = torch.cat([family.embed_images(one) for one in features])
        cosines = family.similarity(images, torch.cat([family.embed_texts(family.encode_texts([t])) for t in texts]))
        if "match" not in family.tasks:
            return cosines.double(), cosines.double()
        itm = [PlainMatching(family, texts).scores(one, torch.arange(len(texts))) for one in features]
    return cosines.double(), cosines.double() + torch.stack(itm).double()


def accidents(table, samples):
    """Whether things that are not equal have scores that are as good as equal."""
    kept = [sample for sample in samples if sample.captions]
    texts = [text for sample in kept for text in sample.captions]
    pictures = [sample.extra["sha256"] for sample in kept]
    return any(
        abs(float(row[one] - row[other])) < NEAR and names[one] != names[other]
        for rows, names in ((table, texts), (table.T, pictures))
        for row in rows
        for one in range(len(names))
        for other in range(one)
    )


def slow(cosines, final, samples, k):
    """Ranks by the published procedure: every caption and image by itself, -100 for who is no candidate, then sorted.

    There, among equal ones, chance decides who is a candidate and who comes first. Here all of them are candidates
    where the first of them is, and the right one comes last.

    Returns:
        {"tr": a rank an image, "ir": a rank a caption}, of those in the gallery.
    """
    owner = [n for n, sample in enumerate(s for s in samples if s.captions) for _ in sample.captions]
    found: dict[str, list[int]] = {"tr": [], "ir": []}
    for direction, first, second in (("tr", cosines, final), ("ir", cosines.T, final.T)):
        for query, nearness in enumerate(first.tolist()):
            scores = [
                score if sum(other > near + NEAR for other in nearness) < k else -100.0
                for near, score in zip(nearness, second[query].tolist(), strict=True)
            ]
            right = [t for t, n in enumerate(owner) if n == query] if direction == "tr" else [owner[query]]
            wrong = [score for place, score in enumerate(scores) if place not in right]
            best = max(scores[place] for place in right)
            found[direction].append(1 + sum(score >= best - NEAR for score in wrong) if best > -100 else 10**6)
    return found


@pytest.mark.parametrize("kind", [BlipMatcher, Blip2Matcher, Clip])
def test_recall_is_that_of_the_slow_way(kind, samples, tmp_path):
    judged = 0
    for seed in range(8):
        family = stirred(kind.tiny(seed=seed))
        if kind is Blip2Matcher:  # new ones are all alike, and then so are the scores
            torch.nn.init.normal_(family.model.query_tokens)
        cosines, final = tables(family, samples)
        if accidents(cosines, samples) or accidents(final, samples):
            continue  # there rounding would be judged
        judged += 1
        for k in (4, 9, 128):  # few; more than half of the captions and all of the images; all of both
            result = run(family, samples, tmp_path / f"{seed}-{k}", rerank=k)
            for direction, found in slow(cosines, final, samples, k if "match" in family.tasks else 128).items():
                these = np.array(found)
                for cut in (1, 5, 10):
                    value = result.scores[f"{direction}_recall_at_{cut}"].value
                    assert value == pytest.approx((these <= cut).mean()), (seed, k, direction, cut)
                if k == 128:
                    assert result.scores[f"{direction}_mean_rank"].value == pytest.approx(these.mean())
                    assert result.scores[f"{direction}_median_rank"].value == np.median(these)
        if judged == 3:
            break
    assert judged
    assert result.counts["images"] == 9
    assert result.counts["captions"] == sum(map(len, CAPTIONS))
    assert result.counts["shared_captions"] == 2
    assert result.counts["duplicate_images"] == 1
    assert result.counts["tr_tied_ranks"] >= 1 or kind is not Clip
    assert result.counts["ir_tied_ranks"] >= 4  # the captions of the picture that comes twice
    assert set(result.baselines) == ({"embeddings alone", "chance"} if "match" in family.tasks else {"chance"})


def test_hits_are_in_order_and_say_both_scores(blip, samples, tmp_path):
    run(blip, samples, tmp_path, rerank=6, hits=3)
    rows = list(jsonl.read(tmp_path / "hits.jsonl"))
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_query.setdefault(row["query"], []).append(row)
    captions = {f"{s.id}#{n}" for s in samples for n in range(len(s.captions))}
    assert set(by_query) == captions | {s.id for s in samples if s.captions}
    for query, hits in by_query.items():
        assert [hit["rank"] for hit in hits][:3] == [1, 2, 3]
        totals = [hit["itc"] + hit["itm"] for hit in hits]
        assert totals == sorted(totals, reverse=True)
        assert ({hit["candidate"] for hit in hits} <= captions) == (query not in captions)


def test_the_ceiling_is_what_the_first_stage_lets_through(blip, samples, tmp_path):
    result = run(blip, samples, tmp_path, rerank=2)
    first = result.baselines["embeddings alone"]
    ceiling = {direction: float(note.split()[0]) for direction, note in result.notes.items()}
    assert set(ceiling) == {"tr_ceiling", "ir_ceiling"}
    for direction in ("tr", "ir"):
        # who did not come through is a miss at 10, too, though no more than ten are asked for; alone it may be a hit
        highest = pytest.approx(ceiling[f"{direction}_ceiling"], abs=1e-4)
        assert result.scores[f"{direction}_recall_at_10"].value == highest
        assert first[f"{direction}_recall_at_10"].value > ceiling[f"{direction}_ceiling"]
        assert first[f"{direction}_recall_at_1"].value <= ceiling[f"{direction}_ceiling"] + 1e-4


class Counting(Matching):
    def __init__(self, inner, stop=10**9):
        self.inner, self.stop, self.calls = inner, stop, 0

    def scores(self, features, texts):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        return self.inner.scores(features, texts)


def test_a_killed_evaluation_goes_on(blip, samples, tmp_path, monkeypatch):
    run(blip, samples, tmp_path / "whole", rerank=5)
    plain = BlipMatcher.matching
    counting = Counting(blip.matching([""]), stop=3)

    def matching(self, texts):
        counting.inner = plain(self, texts)
        return counting

    monkeypatch.setattr(BlipMatcher, "matching", matching)
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(blip, samples, folder, rerank=5)
    with open(folder / "matches.jsonl", "ab") as file:
        file.write(b'{"image": "i7", "itm": [0.1')  # the kill came in the middle of a line
    counting.stop, counting.calls = 10**9, 0
    embedded = []
    monkeypatch.setattr(BlipMatcher, "embed_images", lambda self, batch: embedded.append(batch))
    run(blip, samples, folder, rerank=5)
    assert counting.calls == 8 - 3  # eight distinct pictures
    assert not embedded
    for name in ("scores.json", "hits.jsonl", "matches.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_evaluation_is_not_mixed_in(blip, samples, tmp_path):
    run(blip, samples, tmp_path, rerank=5)
    with pytest.raises(CutlineError, match="rerank was 5, is 6"):
        run(blip, samples, tmp_path, rerank=6)


def test_an_image_that_cannot_be_opened_is_a_miss(blip, samples, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    lost = Sample(id="lost", image=str(broken), captions=("a lost caption", "a dog"))
    few = [*samples[:4], lost]
    result = run(blip, few, tmp_path / "out")
    assert result.counts["failed"] == 1
    assert result.scores["tr_recall_at_10"].value == pytest.approx(4 / 5)
    assert result.scores["ir_recall_at_10"].value == pytest.approx(8 / 10)
    assert result.scores["tr_recall_at_10"].per_image == (1, 1, 1, 1, 0)
    with pytest.raises(DataError, match="None of the images"):
        run(blip, [lost], tmp_path / "none")
    with pytest.raises(DataError, match="has a caption"):
        run(blip, samples[4:5], tmp_path / "empty")


def test_a_k_beyond_the_gallery_is_said(blip, samples, tmp_path, messages):
    run(blip, samples[:3], tmp_path)
    said = messages()
    assert "rerank = 128 is more than the 3 images" in said


class Noisy(Matching):
    """As half precision would be: off by a little, always by the same for the same pair."""

    def __init__(self, inner, size):
        self.inner, self.size = inner, size

    def scores(self, features, texts):
        scores = self.inner.scores(features, texts)
        return scores + self.size * torch.sin(1e4 * scores)


def test_verifying_gives_the_ranks_of_float32(samples, tmp_path, monkeypatch):
    exact, half = stirred(BlipMatcher.tiny()), stirred(BlipMatcher.tiny())
    truth = run(exact, samples, tmp_path / "exact")
    monkeypatch.setattr(half, "matching", lambda texts: Noisy(exact.matching(texts), 0.03))
    monkeypatch.setattr("cutline.retrieve.verify.PROBED", 8)
    off = run(half, samples, tmp_path / "off")
    verified = run(half, samples, tmp_path / "verified", exact=exact)

    def numbers(result):
        return [(score.metric, score.value, score.low, score.high) for score in result.scores.values()]

    assert numbers(off) != numbers(truth)
    assert numbers(verified) == numbers(truth)
    assert 0 < verified.counts["float32_pairs"] < 8 * 17
    assert "verified" in verified.scores["tr_recall_at_1"].signature


class Table(Matching):
    def __init__(self, scores):
        self.all = scores

    def scores(self, features, texts):
        return self.all[int(features["features"]), texts]


@pytest.mark.parametrize("seed", range(8))
def test_verifying_asks_for_each_image_of_a_picture_by_itself(samples, seed, monkeypatch):
    monkeypatch.setattr("cutline.retrieve.verify.PROBED", 8)
    gallery = gather(samples, lambda texts: list(texts))
    chance = torch.Generator().manual_seed(seed)
    exact = torch.randn(len(gallery.pictures), len(gallery.texts), generator=chance)
    rough = exact + 0.3 * torch.where(torch.rand(exact.shape, generator=chance) < 0.5, -1, 1)
    of_images, of_texts = nearest(torch.zeros_like(exact), 128), nearest(torch.zeros_like(exact.T), 128)
    of_images.matches, of_texts.matches = rough.gather(1, of_images.indices), rough.T.gather(1, of_texts.indices)
    verified = verify(Table(exact), lambda picture: {"features": torch.tensor(picture)}, gallery, of_images, of_texts)
    assert verified.max_error == pytest.approx(0.3, abs=1e-5)
    texts, pictures = torch.zeros_like(exact), torch.zeros_like(exact.T)
    texts.scatter_(1, of_images.indices, of_images.scores())
    pictures.scatter_(1, of_texts.indices, of_texts.scores())
    for n, picture in enumerate(gallery.picture_of.tolist()):
        wanted = recall.text_ranks(gallery, picture, exact[picture].double().numpy())[n]
        assert recall.text_ranks(gallery, picture, texts[picture].double().numpy())[n][:2] == wanted[:2]
    for caption, text in enumerate(gallery.text_of.tolist()):
        truth = recall.image_ranks(gallery, text, exact[:, text].double().numpy())[caption]
        assert recall.image_ranks(gallery, text, pictures[text].double().numpy())[caption] == truth


def test_medians_means_and_intervals():
    ranks, owner = np.array([1, 3, 1, 20, 7]), np.array([0, 0, 1, 1, 2])
    found = recall.score("ir", ranks, owner, ["a", "b", "c"], 500, "s")
    assert found["ir_recall_at_1"].value == pytest.approx(2 / 5)
    assert found["ir_recall_at_10"].value == pytest.approx(4 / 5)
    assert found["ir_mean_rank"].value == pytest.approx(32 / 5)
    assert found["ir_median_rank"].value == 3
    assert found["ir_recall_at_1"].per_image == (0.5, 0.5, 0.0)
    for score in found.values():
        assert score.low <= score.value <= score.high
        assert score.n == 3
    # images of one group are drawn together: with one group there is nothing to draw
    one = recall.score("ir", ranks, owner, ["a", "a", "a"], 50, "s")
    assert one["ir_recall_at_5"].low == one["ir_recall_at_5"].high == pytest.approx(3 / 5)
    # the median of what a bootstrap draws, by numpy
    chance = np.random.default_rng(1)
    values, weights = np.sort(chance.integers(1, 30, size=40)), chance.integers(0, 3, size=(10, 40)).astype(float)
    wanted = [np.median(np.repeat(values, row.astype(int))) for row in weights]
    np.testing.assert_array_equal(recall._medians(values, weights), wanted)


def test_chance_is_what_shuffling_gives(samples):
    gallery = gather(samples, lambda texts: list(texts))
    expected = recall.chance(gallery)
    assert json.dumps(expected)
    random = np.random.default_rng(0)
    captions = len(gallery.text_of)
    hits: dict[int, list[float]] = {k: [] for k in (1, 5, 10)}
    for _ in range(400):
        order = random.permutation(captions)
        ranks = [1 + min(np.flatnonzero(np.isin(order, np.flatnonzero(gallery.sample_of == n)))) for n in range(9)]
        for k, found in hits.items():
            found.append(float(np.mean(np.array(ranks) <= k)))
    for k, found in hits.items():
        assert expected[f"tr_recall_at_{k}"] == pytest.approx(np.mean(found), abs=0.02)
        assert expected[f"ir_recall_at_{k}"] == pytest.approx(min(k / 9, 1))


def test_blocks_of_queries_change_nothing(blip, samples, tmp_path, monkeypatch):
    run(blip, samples, tmp_path / "one", rerank=5)
    monkeypatch.setattr("cutline.retrieve.stages.BLOCK", 1)
    run(blip, samples, tmp_path / "many", rerank=5)
    one, many = ((tmp_path / name / "scores.json").read_text() for name in ("one", "many"))
    assert one == many
