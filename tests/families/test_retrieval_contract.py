"""What every family that embeds or matches must do, run over the miniature of each."""

from __future__ import annotations

import pytest
import torch

from cutline import families
from cutline.core.errors import CheckpointError
from cutline.families.base import Family
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.common.vision_fingerprint import vision_fingerprint
from cutline.families.open import find
from cutline.train.trainable import open_parts, partition
from tests.conftest import drawing

TEXTS = ("a red circle above a blue square", "a green triangle", "a yellow square to the left of a red circle")
KINDS = [kind for name in families.names() for kind in find(name).variants()]
EMBEDDING = [kind for kind in KINDS if "embed" in kind.tasks]
MATCHING = [kind for kind in KINDS if "match" in kind.tasks]


def tiny(kind: type[Family], seed: int = 0) -> RetrievalFamily:
    made = kind.tiny(seed=seed)
    assert isinstance(made, RetrievalFamily)
    return made


def name(kind: type[Family]) -> str:
    return f"{kind.name()}-{kind.__name__}"


def stirred(family: RetrievalFamily) -> RetrievalFamily:
    """Some fresh weights are near zero, and then every image and word looks the same."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in family.model.named_parameters():
            if family.part_of(parameter_name) != "vision":
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return family.eval()


@pytest.fixture(scope="module", params=EMBEDDING, ids=name)
def family(request) -> RetrievalFamily:
    return stirred(tiny(request.param))


@pytest.fixture(scope="module", params=MATCHING, ids=name)
def matcher(request) -> RetrievalFamily:
    return stirred(tiny(request.param))


def pictures(count: int = 3):
    # of different shapes, so that models of native resolution have images of different lengths
    return [drawing(n, (64 + 16 * n, 64)) for n in range(count)]


def vectors(family: RetrievalFamily):
    with torch.no_grad():
        images = family.embed_images(family.pixels(pictures()))
        return images, family.embed_texts(family.encode_texts(TEXTS))


def test_parts_take_every_parameter_once(family):
    found = partition(family)
    names = [name for parameters in found.values() for name, _ in parameters]
    assert sorted(names) == sorted(name for name, _ in family.model.named_parameters())
    assert found["vision"]
    assert found["text"]


def test_vectors_are_of_length_one_in_one_space(family):
    images, texts = vectors(family)
    assert images.dtype == texts.dtype == torch.float32
    assert images.shape[-1] == texts.shape[-1]
    assert len(images) == len(texts) == 3
    for made in (images, texts):
        torch.testing.assert_close(made.norm(dim=-1), torch.ones(made.shape[:-1]))
    cosines = family.similarity(images, texts)
    assert cosines.shape == (3, 3)
    assert float(cosines.abs().max()) <= 1 + 1e-5


def test_images_and_texts_are_told_apart(family):
    images, texts = vectors(family)
    assert not torch.allclose(images[0], images[1], atol=1e-5)
    assert not torch.allclose(texts[0], texts[1], atol=1e-5)


def test_a_batch_is_as_good_as_its_rows(family):
    images, texts = vectors(family)
    with torch.no_grad():
        for n, (picture, text) in enumerate(zip(pictures(), TEXTS, strict=True)):
            alone = family.embed_images(family.pixels([picture]))[0]
            torch.testing.assert_close(alone, images[n], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                family.embed_texts(family.encode_texts([text]))[0], texts[n], atol=1e-5, rtol=1e-5
            )


def test_cached_features_are_what_the_tower_says(family):
    images, _ = vectors(family)
    with torch.no_grad():
        seen = family.split_features(family.encode_images(family.pixels(pictures())))
        cached = family.embed_images(family.join_features(seen))
    assert len(seen) == 3
    torch.testing.assert_close(cached, images, atol=1e-6, rtol=1e-6)


def test_a_long_text_is_cut_and_keeps_its_end(family):
    long = " ".join(TEXTS * 30)
    batch = family.encode_texts([long, TEXTS[0]])
    assert batch["input_ids"].shape[1] <= family.text_tokens
    with torch.no_grad():
        both = family.embed_texts(batch)
        torch.testing.assert_close(both[1], family.embed_texts(family.encode_texts([TEXTS[0]]))[0])
    if "attention_mask" in batch:
        ends = family.encode_texts([TEXTS[0]])
        end = ends["input_ids"][0, int(ends["attention_mask"].sum()) - 1]
        cut = int(batch["attention_mask"][0].sum())
        assert batch["input_ids"][0, cut - 1] == end


def test_saved_and_opened_again_says_the_same(family, tmp_path):
    family.save(tmp_path)
    opened = find(family.name()).open(str(tmp_path)).eval()
    assert isinstance(opened, RetrievalFamily)
    assert type(opened) is type(family)
    for one, other in zip(vectors(family), vectors(opened), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert vision_fingerprint(opened) == vision_fingerprint(family)


def test_what_it_cannot_do_is_said(family):
    assert "embed" in family.tasks
    family.require("embed")
    if "caption" not in family.tasks:
        with pytest.raises(CheckpointError, match="can't write captions"):
            family.require("caption")
        with pytest.raises(CheckpointError, match="can't write captions"):
            family.collate([], with_targets=False)
    if "match" not in family.tasks:
        with pytest.raises(CheckpointError, match="can't match"):
            family.match_logits({}, {}, torch.zeros(0))


def test_three_pairs_are_learnt_by_contrast(family):
    """Gradients reach what is trained, through images and texts."""
    student = tiny(type(family), seed=1)
    open_parts(student, {})
    student.train()
    images, texts = [drawing(n) for n in (1, 2, 3)], student.encode_texts(TEXTS)
    pixels, answers = student.pixels(images), torch.arange(3)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(150):
        cosines = student.similarity(student.embed_images(pixels), student.embed_texts(texts)) / 0.07
        loss = torch.nn.functional.cross_entropy(cosines, answers)
        loss = loss + torch.nn.functional.cross_entropy(cosines.T, answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.05:
            break
    assert float(loss.detach()) < 0.3
    student.eval()
    with torch.no_grad():
        cosines = student.similarity(student.embed_images(student.pixels(images)), student.embed_texts(texts))
    assert cosines.argmax(0).tolist() == cosines.argmax(1).tolist() == [0, 1, 2]


def test_pairs_are_matched_each_by_itself(matcher):
    images = torch.tensor([0, 0, 2, 1])
    texts = [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[2]]
    with torch.no_grad():
        seen = matcher.encode_images(matcher.pixels(pictures()))
        together = matcher.match_logits(seen, matcher.encode_texts(texts), images)[:, 1]
        for n, (image, text) in enumerate(zip(images.tolist(), texts, strict=True)):
            live = matcher.pixels([pictures()[image]])
            alone = matcher.match_logits(live, matcher.encode_texts([text]), torch.zeros(1, dtype=torch.int64))[:, 1]
            torch.testing.assert_close(alone[0], together[n], atol=1e-5, rtol=1e-5)
    assert together.dtype == torch.float32
    assert together.unique().numel() == 4


def test_matching_is_learnt(matcher):
    student = tiny(type(matcher), seed=1)
    open_parts(student, {})
    student.train()
    pixels, texts = student.pixels([drawing(1), drawing(2)]), student.encode_texts([TEXTS[0], TEXTS[1]] * 2)
    images, answers = torch.tensor([0, 1, 1, 0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(150):
        scores = student.match_logits(pixels, texts, images)[:, 1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.05:
            break
    assert float(loss.detach()) < 0.2


@pytest.mark.parametrize("kind", [find(name) for name in families.names()], ids=lambda kind: kind.name())
@pytest.mark.parametrize("task", ["caption", "embed", "match"])
def test_a_miniature_can_do_what_it_is_wanted_for(kind, task):
    if task in kind.tasks:
        kind.tiny(task=task).require(task)
        assert kind.tasks == frozenset().union(*(variant.tasks for variant in kind.variants()))
    else:
        with pytest.raises(CheckpointError, match="can't"):
            kind.tiny(task=task).require(task)
