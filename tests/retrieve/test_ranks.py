"""Recall: against counting by hand, with several true candidates, ties, and true ones that stage one lost."""

from __future__ import annotations

import torch

from cutline.retrieve.ranks import best_ranks, recalls
from cutline.retrieve.rerank import Candidates, nearest


def test_the_best_of_several_true_candidates_counts():
    cosines = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    owners = torch.tensor([5, 3, 3, 3])
    assert best_ranks(nearest(cosines, 4), torch.tensor([3]), owners).tolist() == [2]


def test_a_true_candidate_that_is_not_among_them_is_behind_the_last():
    cosines = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    assert best_ranks(nearest(cosines, 2), torch.tensor([0]), torch.tensor([9, 9, 9, 0])).tolist() == [5]


def test_who_says_the_same_of_everything_finds_nothing():
    cosines = torch.zeros(3, 12)
    ranks = best_ranks(nearest(cosines, 12), torch.arange(3), torch.arange(12))
    assert ranks.tolist() == [12, 12, 12]


def test_the_second_stage_ranks_anew():
    found = nearest(torch.tensor([[0.9, 0.8, 0.7]]), 3)
    found.matches = torch.tensor([[0.0, 0.5, -1.0]])
    assert best_ranks(found, torch.tensor([1]), torch.arange(3)).tolist() == [1]


def test_recalls_against_a_slow_count():
    torch.manual_seed(0)
    image_of = torch.arange(20).repeat_interleave(5)
    cosines = torch.randn(20, 100)
    found = recalls(
        best_ranks(nearest(cosines, 100), torch.arange(20), image_of),
        best_ranks(nearest(cosines.T, 20), image_of, torch.arange(20)),
    )
    for cut in (1, 5, 10):
        texts = [bool((image_of[row.argsort(descending=True)[:cut]] == n).any()) for n, row in enumerate(cosines)]
        images = [int(image_of[n]) in column.argsort(descending=True)[:cut] for n, column in enumerate(cosines.T)]
        assert found[f"tr_recall_at_{cut}"] == sum(texts) / 20
        assert found[f"ir_recall_at_{cut}"] == sum(images) / 100
    assert (
        found["mean_recall"] == sum(found[f"{kind}_recall_at_{cut}"] for kind in ("tr", "ir") for cut in (1, 5, 10)) / 6
    )
    assert isinstance(nearest(cosines, 1), Candidates)
