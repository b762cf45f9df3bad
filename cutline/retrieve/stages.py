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
from cutline.retrieve.gallery import Gallery, Places
from cutline.retrieve.rerank import Candidates, nearest

#: Cosines held at once, in numbers.
BLOCK = 2**25

#: What puts every candidate before everything that is none: more than any score is.
FAR = 1e4

Similarity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Direction:
    """One direction of retrieval: Q queries, each of which ranks C candidates.

    Queries and candidates are the N images and the M captions of the gallery. Equal ones are computed once, as one of
    its U pictures or D texts: each is a row of the vectors.

    Attributes:
        name: "tr" (images find captions) or "ir" (captions find images).
        candidates: of each row of the queries.
        cosines: yields the first row and the cosines with all rows of the candidates, of some rows of the queries at a
            time.
        query_rows, candidate_rows: [Q] and [C] rows; -1 where a picture can't be opened.
        query_samples, candidate_samples: [Q] and [C] positions in ``gallery.samples``.
        query_ids, candidate_ids: Q and C names.
        pairs: [M] queries and [M] candidates that belong together.
        rank: row of the queries, float64 scores with all rows of the candidates → query → (rank with ties against the
            right candidate, rank with ties for it, …).
    """

    name: str
    candidates: Candidates
    cosines: Callable[[], Iterator[tuple[int, Tensor]]]
    query_rows: Places
    candidate_rows: Places
    query_samples: Places
    candidate_samples: Places
    query_ids: list[str]
    candidate_ids: list[str]
    pairs: tuple[Places, Places]
    rank: Callable[[int, NDArray[np.float64]], Mapping[int, tuple[int, ...]]]

    def scores(self, matched: bool) -> Iterator[tuple[int, np.ndarray]]:
        """Each row of the queries, and its float64 scores with all rows of the candidates.

        Args:
            matched: by cosine + matching logit, and what is no candidate moved down by ``FAR``; else by cosine alone.
        """
        final = self.candidates.scores().double() if matched else None
        for start, cosines in self.cosines():
            table = cosines.double()
            if final is not None:
                span = slice(start, start + len(table))
                places, table = self.candidates.places[span], table - FAR
                table.scatter_(1, places, torch.where(final[span].isfinite(), final[span], table.gather(1, places)))
            yield from enumerate(table.numpy(), start)

    def ranks(self, matched: bool) -> tuple[np.ndarray, np.ndarray]:
        """[Q] ranks with ties against the right candidate, and with ties for it.

        Everything that is no candidate ranks after all candidates, in the order of the cosines. It is a miss at every
        cut of recall, however few candidates there are, as where it keeps a score of -100 in the published evaluation.
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
        """[Q] whether a right candidate is among the candidates."""
        queries, right = self.pairs
        asking, wanted = self.query_rows[queries], self.candidate_rows[right]
        among = self.candidates.places.numpy()[asking] == wanted[:, None]
        among &= self.candidates.cosines.isfinite().numpy()[asking]
        kept = np.zeros(len(self.query_rows), bool)
        np.logical_or.at(kept, queries, among.any(1) & (asking >= 0) & (wanted >= 0))
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
    def texts_of_images(self) -> Candidates:
        return self.tr.candidates

    @property
    def images_of_texts(self) -> Candidates:
        return self.ir.candidates


def first_stage(gallery: Gallery, images: Tensor, texts: Tensor, similarity: Similarity, k: int) -> Stages:
    """Candidates by cosine.

    Args:
        images: [U, E] or [U, Q, E] unit vectors of the gallery's pictures.
        texts: [D, E] of its texts.
        similarity: a family's, of images with texts.
        k: candidates of a query.
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
    """Cosines float32 of some queries with all candidates at a time, and the first of those queries."""
    queries, others = (images, texts) if by_image else (texts, images)
    several = images.shape[1] if images.ndim == 3 else 1
    size = max(1, BLOCK // max(1, len(others) * several))
    for start in range(0, len(queries), size):
        some = queries[start : start + size]
        yield start, similarity(some, texts) if by_image else similarity(images, some).T


def candidates(
    images: Tensor,
    texts: Tensor,
    similarity: Similarity,
    k: int,
    gallery: Gallery,
    *,
    by_image: bool,
) -> Candidates:
    """The k nearest captions of every picture, or the k nearest images of every text."""
    there = gallery.text_of if by_image else gallery.picture_of[gallery.picture_of >= 0]
    copies = torch.from_numpy(np.bincount(there, minlength=len(texts) if by_image else len(images)))
    found = [nearest(cosines, k, copies) for _, cosines in blocks(images, texts, similarity, by_image=by_image)]
    return Candidates(torch.cat([one.places for one in found]), torch.cat([one.cosines for one in found]))
