"""Searching an index: text → images, image → images, image → texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cutline.data.images import open_image
from cutline.families.base import Batch
from cutline.families.common.retrieval import RetrievalFamily
from cutline.records import Hit
from cutline.retrieve.embed import embed_texts
from cutline.retrieve.index import Condition, Index, Kind


def search(
    index: Index,
    family: RetrievalFamily,
    *,
    text: str = "",
    image: str = "",
    kind: Kind = "image",
    k: int = 10,
    conditions: Sequence[Condition] = (),
    rerank: int = 0,
    exact: bool = False,
) -> list[tuple[Hit, int]]:
    """The k best items of a kind for a text or an image, each with its row in the index.

    Args:
        text, image: one of them; an image by its path.
        rerank: how many of the nearest are ranked anew by cosine + matching logit; 0: none.
        exact: scan the vectors even where the index has an approximate structure.

    Raises:
        ImageProblem: the query's image can't be opened.
        CheckpointError: the model can't match.
    """
    if rerank:
        family.needs("match")
    seen: Batch = {}
    with torch.inference_mode():
        if image:
            seen = family.see(family.pixels([open_image(image)]))
            query = family.embed_images(seen)[0].float().cpu().numpy()
        else:
            query = embed_texts(family, [text], 1)[0].numpy()
    found = index.nearest(np.asarray(query, np.float32), index.where(kind, conditions), max(k, rerank), exact=exact)
    logits: list[float | None] = [None] * len(found)
    if rerank and found:
        logits = _matched(index, family, [row for row, _ in found], text, seen, kind)
    order = sorted(range(len(found)), key=lambda place: -(found[place][1] + (logits[place] or 0.0)))[:k]
    name = image or text
    return [
        (
            Hit(query=name, candidate=index.item(found[place][0])["id"], rank=rank, itc=found[place][1],
                itm=logits[place]),
            found[place][0],
        )
        for rank, place in enumerate(order, 1)
    ]  # fmt: skip


def _matched(
    index: Index, family: RetrievalFamily, rows: Sequence[int], text: str, seen: Batch, kind: Kind
) -> list[float | None]:
    """Matching logits of the query with each row; of an image with an image, of none: only texts match images."""
    if text and kind == "image":
        matching = family.matching([text])
        scores: list[float | None] = []
        for row in rows:
            with torch.inference_mode():
                features = family.see(family.pixels([open_image(index.item(row)["image"])]))
            scores.append(float(matching.scores(features, torch.zeros(1, dtype=torch.int64))[0]))
        return scores
    if seen and kind == "text":
        matching = family.matching([index.item(row)["text"] for row in rows])
        return [float(score) for score in matching.scores(seen, torch.arange(len(rows)))]
    return [None] * len(rows)
