"""Ranks and recall: against counting by hand, with several right candidates, ties, and right ones that were lost."""

from __future__ import annotations

import torch

from cutline.core.records import Sample
from cutline.retrieve.gallery import gather
from cutline.retrieve.recall import recalls
from cutline.retrieve.stages import first_stage


def staged(captions, cosines, k=10**6, matches=None):
    """Stages of images with so many captions each, whose cosines are given: [N, M]."""
    samples = [
        Sample(id=str(n), image=f"{n}.jpg", captions=tuple(f"{n} {m}" for m in range(many)))
        for n, many in enumerate(captions)
    ]
    gallery = gather(samples, list)
    images, texts = torch.eye(len(captions)), cosines.T.contiguous()  # their products are the cosines
    stages = first_stage(gallery, images, texts, lambda some, others: some @ others.T, k)
    if matches is not None:
        stages.texts_of_images.matches = matches.gather(1, stages.texts_of_images.indices)
        stages.images_of_texts.matches = matches.T.gather(1, stages.images_of_texts.indices)
    return stages


def ranks(stages, direction, matched=True):
    return getattr(stages, direction).ranks(matched)[0].tolist()


def test_the_best_of_several_right_candidates_counts():
    stages = staged([3, 1], torch.tensor([[0.8, 0.7, 0.1, 0.9], [0.0, 0.0, 0.0, 0.5]]))
    assert ranks(stages, "tr") == [2, 1]
    assert ranks(stages, "ir") == [1, 1, 1, 2]


def test_a_right_one_that_did_not_come_through_is_a_miss_at_every_cut():
    stages = staged([1, 3], torch.tensor([[0.1, 0.9, 0.8, 0.7], [0.0, 0.9, 0.9, 0.9]]), k=2)
    assert stages.tr.kept().tolist() == [False, True]
    assert ranks(stages, "tr", matched=False) == [4, 1]
    assert ranks(stages, "tr") == [11, 1]


def test_who_says_the_same_of_everything_finds_nothing():
    stages = staged([1] * 12, torch.zeros(12, 12))
    assert ranks(stages, "tr") == ranks(stages, "ir") == [12] * 12
    assert stages.tr.ranks(True)[1].tolist() == [1] * 12  # with ties for it


def test_the_second_stage_ranks_anew():
    cosines = torch.tensor([[0.9, 0.8, 0.7], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    matches = torch.tensor([[-1.0, 0.5, 0.0], [0.0, 2.0, 1.0], [5.0, 0.0, 0.5]])
    stages = staged([1, 1, 1], cosines, matches=matches)
    assert ranks(stages, "tr", matched=False)[0] == 1
    assert ranks(stages, "tr") == [3, 1, 2]
    assert ranks(stages, "ir") == [3, 1, 3]


def test_recalls_against_a_slow_count():
    torch.manual_seed(0)
    image_of = torch.arange(20).repeat_interleave(5)
    cosines = torch.randn(20, 100)
    stages = staged([5] * 20, cosines)
    found = recalls(*(direction.ranks(False)[0] for direction in stages.directions))
    for cut in (1, 5, 10):
        texts = [bool((image_of[row.argsort(descending=True)[:cut]] == n).any()) for n, row in enumerate(cosines)]
        images = [int(image_of[n]) in column.argsort(descending=True)[:cut] for n, column in enumerate(cosines.T)]
        assert found[f"tr_recall_at_{cut}"] == sum(texts) / 20
        assert found[f"ir_recall_at_{cut}"] == sum(images) / 100
    assert (
        found["mean_recall"] == sum(found[f"{kind}_recall_at_{cut}"] for kind in ("tr", "ir") for cut in (1, 5, 10)) / 6
    )
