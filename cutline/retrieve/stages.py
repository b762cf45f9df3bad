"""Both directions of retrieval over a gallery: candidates, their final scores, and the ranks of the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutline.retrieve import recall
from cutline.retrieve.gallery import Gallery
from cutline.retrieve.rerank import Candidates, nearest

#: Cosines held at once, in numbers.
BLOCK = 2**25

#: What puts every candidate before everything that is none: more than any score is.
FAR = 1e4


@dataclass
class Stages:
    """Both directions' candidates and how right they are.

    Attributes:
        images: [U, E] or [U, Q, E] unit vectors of the gallery's pictures.
        texts: [D, E] of its texts.
    """

    gallery: Gallery
    images: Tensor
    texts: Tensor
    texts_of_images: Candidates
    images_of_texts: Candidates
    similarity: Callable[[Tensor, Tensor], Tensor]

    def rows(self, direction: str, matched: bool) -> Iterator[tuple[int, np.ndarray]]:
        """Each query's float64 scores with all candidates, those that stay behind moved down by ``FAR``.

        Args:
            direction: "tr" (queries are the U pictures) or "ir" (the D texts).
            matched: by cosine + matching score; else by cosine alone.
        """
        ours = self.texts_of_images if direction == "tr" else self.images_of_texts
        final = ours.scores().double() if matched else None
        for start, cosines in blocks(self.images, self.texts, self.similarity, by_image=direction == "tr"):
            table = cosines.double()
            if final is not None:
                span = slice(start, start + len(table))
                places, table = ours.places[span], table - FAR
                table.scatter_(1, places, torch.where(final[span].isfinite(), final[span], table.gather(1, places)))
            yield from enumerate(table.numpy(), start)

    def ranks(self, direction: str, matched: bool) -> tuple[np.ndarray, np.ndarray]:
        """[Q] ranks with ties against the right one, and with ties for it.

        Who is no candidate stands behind all candidates, in the order of the cosines; it is a miss at every cut of
        recall, however few candidates there are, as where it keeps a score of -100 in the published evaluation.
        """
        gallery = self.gallery
        queries = len(gallery.samples) if direction == "tr" else len(gallery.text_of)
        last = recall.beyond(len(gallery.text_of) if direction == "tr" else len(gallery.samples))
        against, favoured = np.full(queries, last), np.full(queries, last)
        judge = recall.text_ranks if direction == "tr" else recall.image_ranks
        for query, scores in self.rows(direction, matched):
            for place, found in judge(gallery, query, scores).items():
                against[place], favoured[place] = found[:2]
        if matched:
            lost = ~self.kept(direction)
            against[lost], favoured[lost] = (np.maximum(ranks[lost], recall.beyond(0)) for ranks in (against, favoured))
        return against, favoured

    def kept(self, direction: str) -> np.ndarray:
        """[Q] whether a right candidate came through the first stage."""
        gallery = self.gallery
        pictures, texts = gallery.picture_of[gallery.sample_of], gallery.text_of
        ours = self.texts_of_images if direction == "tr" else self.images_of_texts
        queries, right = (pictures, texts) if direction == "tr" else (texts, pictures)
        theirs = (ours.places.numpy()[queries] == right[:, None]) & ours.cosines.isfinite().numpy()[queries]
        found = theirs.any(1) & (pictures >= 0)
        if direction == "ir":
            return np.asarray(found)
        any_of = np.zeros(len(gallery.samples), bool)
        np.logical_or.at(any_of, gallery.sample_of, found)
        return any_of


def first_stage(
    gallery: Gallery, images: Tensor, texts: Tensor, similarity: Callable[[Tensor, Tensor], Tensor], k: int
) -> Stages:
    """Candidates by cosine.

    Args:
        images: [U, E] or [U, Q, E] unit vectors of the gallery's pictures.
        texts: [D, E] of its texts.
        similarity: a family's, of images with texts.
        k: candidates of a query.
    """
    of_images = candidates(images, texts, similarity, k, gallery, by_image=True)
    of_texts = candidates(images, texts, similarity, k, gallery, by_image=False)
    return Stages(gallery, images, texts, of_images, of_texts, similarity)


def blocks(
    images: Tensor, texts: Tensor, similarity: Callable[[Tensor, Tensor], Tensor], *, by_image: bool
) -> Iterator[tuple[int, Tensor]]:
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
    similarity: Callable[[Tensor, Tensor], Tensor],
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
