"""Searching an index: text → images, image → images, image → texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cutline.core.records import Hit
from cutline.families.base import Batch
from cutline.families.common.retrieval import RetrievalFamily
from cutline.images.open import open_image
from cutline.retrieve.embed import embed_texts
from cutline.retrieve.index import Condition, Floats, Index, Kind


class Found(NamedTuple):
    """One item that was found.

    Attributes:
        row: its row in the index.
        captions: of an image all, the nearest to what was asked first; of a caption itself.
    """

    hit: Hit
    row: int
    captions: tuple[str, ...]


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
) -> list[Found]:
    """The k best items of a kind for a text or an image, best first.

    Args:
        text, image: one of them; an image by its path.
        rerank: how many of the nearest are ranked anew by cosine + matching logit; 0: none.
        exact: scan the vectors even where the index has an approximate structure.

    Raises:
        ImageProblem: the query's image can't be opened.
        CheckpointError: the model can't match.
    """
    if rerank:
        family.require("match")
    seen: Batch = {}
    with torch.inference_mode():
        if image:
            seen = family.encode_images(family.pixels([open_image(image)]))
            query = family.embed_images(seen)[0].float().cpu().numpy()
        else:
            query = embed_texts(family, [text], 1)[0].numpy()
    asked = np.asarray(query, np.float32)
    found = index.nearest(asked, index.where(kind, conditions), max(k, rerank), exact=exact)
    logits: list[float | None] = [None] * len(found)
    if rerank and found:
        logits = _matched(index, family, [row for row, _ in found], text, seen, kind)
    order = sorted(range(len(found)), key=lambda place: -(found[place][1] + (logits[place] or 0.0)))[:k]
    captions = _captions(index, [found[place][0] for place in order], asked)
    made = []
    for rank, place in enumerate(order, 1):
        row, cosine = found[place]
        hit = Hit(query=image or text, candidate=index.item(row)["id"], rank=rank, itc=cosine, itm=logits[place])
        made.append(Found(hit, row, captions[row]))
    return made


def _captions(index: Index, rows: Sequence[int], query: Floats) -> dict[int, tuple[str, ...]]:
    """Row → what ``Found.captions`` holds."""
    items = {row: index.item(row) for row in rows}
    paths = pa.array({item["image"] for item in items.values() if item["kind"] == "image"}, pa.string())
    same = pc.and_(pc.equal(index.table["kind"], "text"), pc.is_in(index.table["image"], value_set=paths))
    of_image: dict[str, list[int]] = {}
    for row in np.flatnonzero(same.to_numpy()).tolist():
        of_image.setdefault(index.item(row)["id"].rpartition("#")[0], []).append(row)
    made: dict[int, tuple[str, ...]] = {}
    for row, item in items.items():
        if item["kind"] == "text":
            made[row] = (item["text"],)
            continue
        texts = np.array(of_image.get(item["id"], []), np.int64)
        nearest = index.nearest(query, texts, len(texts), exact=True)
        made[row] = (
            tuple(index.item(text)["text"] for text, _ in nearest) if item["kind"] == "image" else (item["text"],)
        )
    return made


def _matched(
    index: Index, family: RetrievalFamily, rows: Sequence[int], text: str, seen: Batch, kind: Kind
) -> list[float | None]:
    """Matching logits of the query with each row; of an image with an image, of none: only texts match images."""
    if text and kind == "image":
        matching = family.matching([text])
        scores: list[float | None] = []
        for row in rows:
            with torch.inference_mode():
                features = family.encode_images(family.pixels([open_image(index.item(row)["image"])]))
            scores.append(float(matching.scores(features, torch.zeros(1, dtype=torch.int64))[0]))
        return scores
    if seen and kind == "text":
        matching = family.matching([index.item(row)["text"] for row in rows])
        return [float(score) for score in matching.scores(seen, torch.arange(len(rows)))]
    return [None] * len(rows)
