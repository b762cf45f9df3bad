"""Both directions of retrieval over a gallery: candidates, their final scores, and the ranks of the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutline.retrieve import recall
from cutline.retrieve.gallery import Gallery, Indices
from cutline.retrieve.rerank import TopK, nearest

#: Most cosines to hold in memory at once.
BLOCK = 2**25

#: Subtracted from the scores of all that is no candidate, so that it ranks last; larger than any score.
FAR = 1e4

Similarity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Direction:
    """One direction of retrieval: Q queries, each of which ranks C candidates.

    Queries and candidates are the N images and the M captions of the gallery. Duplicates are embedded once: each of the
    U distinct pictures or D distinct texts is one row of the embeddings.

    Attributes:
        name: "tr" (images find captions) or "ir" (captions find images).
        candidates: the nearest candidates of each query row.
        cosines: yields blocks of query rows: the first row of the block, and its cosines with all candidate rows.
        query_rows, candidate_rows: [Q] and [C] rows; -1 where a picture can't be opened.
        query_samples, candidate_samples: [Q] and [C] positions in ``gallery.samples``.
        query_ids, candidate_ids: Q and C ids.
        pairs: the M correct pairs, as query indices [M] and candidate indices [M].
        rank: maps a query row and its float64 scores with all candidate rows to: query → (rank with ties counted
            against the correct candidate, rank with ties counted for it, …).
    """

    name: str
    candidates: TopK
    cosines: Callable[[], Iterator[tuple[int, Tensor]]]
    query_rows: Indices
    candidate_rows: Indices
    query_samples: Indices
    candidate_samples: Indices
    query_ids: list[str]
    candidate_ids: list[str]
    pairs: tuple[Indices, Indices]
    rank: Callable[[int, NDArray[np.float64]], Mapping[int, tuple[int, ...]]]

    def scores(self, matched: bool) -> Iterator[tuple[int, np.ndarray]]:
        """Yields each query row with its float64 scores for all candidate rows.

        Args:
            matched: score candidates by cosine + matching logit, and move all others down by ``FAR``; else by cosine
                alone.
        """
        final = self.candidates.scores().double() if matched else None
        for start, cosines in self.cosines():
            table = cosines.double()
            if final is not None:
                span = slice(start, start + len(table))
                indices, table = self.candidates.indices[span], table - FAR
                table.scatter_(1, indices, torch.where(final[span].isfinite(), final[span], table.gather(1, indices)))
            yield from enumerate(table.numpy(), start)

    def ranks(self, matched: bool) -> tuple[np.ndarray, np.ndarray]:
        """Ranks [Q] with ties counted against the correct candidate, and [Q] with ties counted for it.

        What is no candidate ranks after all candidates, in the order of the cosines. It is a miss at every cut of
        recall, however few candidates there are; in the published evaluation its score of -100 has that effect.
        """
        last = recall.beyond(len(self.candidate_rows))
        against, favoured = np.full(len(self.query_rows), last), np.full(len(self.query_rows), last)
        for row, scores in self.scores(matched):
            for query, ranks in self.rank(row, scores).items():
                against[query], favoured[query] = ranks[:2]
        if matched:
            lost = ~self.kept()
            against[lost], favoured[lost] = (np.maximum(ranks[lost], recall.beyond(0)) for ranks in (against, favoured))
        return against, favoured

    def kept(self) -> np.ndarray:
        """Whether a correct candidate is among the candidates, bool [Q]."""
        queries, correct = self.pairs
        query_rows, correct_rows = self.query_rows[queries], self.candidate_rows[correct]
        among = self.candidates.indices.numpy()[query_rows] == correct_rows[:, None]
        among &= self.candidates.cosines.isfinite().numpy()[query_rows]
        kept = np.zeros(len(self.query_rows), bool)
        np.logical_or.at(kept, queries, among.any(1) & (query_rows >= 0) & (correct_rows >= 0))
        return kept


@dataclass(frozen=True)
class Stages:
    """Both directions of a gallery, with their candidates."""

    gallery: Gallery
    tr: Direction
    ir: Direction

    @property
    def directions(self) -> tuple[Direction, Direction]:
        return self.tr, self.ir

    @property
    def texts_of_images(self) -> TopK:
        return self.tr.candidates

    @property
    def images_of_texts(self) -> TopK:
        return self.ir.candidates


def first_stage(gallery: Gallery, images: Tensor, texts: Tensor, similarity: Similarity, k: int) -> Stages:
    """Candidates by cosine.

    Args:
        images: [U, E] or [U, Q, E] unit vectors of the gallery's pictures.
        texts: [D, E] of its texts.
        similarity: the family's similarity of images and texts.
        k: number of candidates per query.
    """
    image_samples, captions = np.arange(len(gallery.samples)), np.arange(len(gallery.text_of))
    image_ids, caption_ids = gallery.ids, gallery.caption_ids()
    tr = Direction(
        name="tr",
        candidates=candidates(images, texts, similarity, k, gallery, by_image=True),
        cosines=partial(blocks, images, texts, similarity, by_image=True),
        query_rows=gallery.picture_of,
        candidate_rows=gallery.text_of,
        query_samples=image_samples,
        candidate_samples=gallery.sample_of,
        query_ids=image_ids,
        candidate_ids=caption_ids,
        pairs=(gallery.sample_of, captions),
        rank=partial(recall.text_ranks, gallery),
    )
    ir = Direction(
        name="ir",
        candidates=candidates(images, texts, similarity, k, gallery, by_image=False),
        cosines=partial(blocks, images, texts, similarity, by_image=False),
        query_rows=gallery.text_of,
        candidate_rows=gallery.picture_of,
        query_samples=gallery.sample_of,
        candidate_samples=image_samples,
        query_ids=caption_ids,
        candidate_ids=image_ids,
        pairs=(captions, gallery.sample_of),
        rank=partial(recall.image_ranks, gallery),
    )
    return Stages(gallery, tr, ir)


def blocks(images: Tensor, texts: Tensor, similarity: Similarity, *, by_image: bool) -> Iterator[tuple[int, Tensor]]:
    """Yields blocks of queries: the first query of the block, and float32 cosines with all candidates."""
    queries, others = (images, texts) if by_image else (texts, images)
    vectors_per_image = images.shape[1] if images.ndim == 3 else 1
    size = max(1, BLOCK // max(1, len(others) * vectors_per_image))
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        yield start, similarity(block, texts) if by_image else similarity(images, block).T


def candidates(
    images: Tensor,
    texts: Tensor,
    similarity: Similarity,
    k: int,
    gallery: Gallery,
    *,
    by_image: bool,
) -> TopK:
    """The k nearest captions of every picture, or the k nearest images of every text."""
    row_of = gallery.text_of if by_image else gallery.picture_of[gallery.picture_of >= 0]
    copies = torch.from_numpy(np.bincount(row_of, minlength=len(texts) if by_image else len(images)))
    parts = [nearest(cosines, k, copies) for _, cosines in blocks(images, texts, similarity, by_image=by_image)]
    return TopK(torch.cat([part.indices for part in parts]), torch.cat([part.cosines for part in parts]))
