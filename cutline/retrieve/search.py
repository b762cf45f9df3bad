"""Searches an index: text → images, image → images, image → captions."""

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


class SearchResult(NamedTuple):
    """One result of a search.

    Attributes:
        hit: ids, rank and scores.
        row: row in the index.
        captions: all captions of an image, the nearest to the query first; of a caption, the caption itself.
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
) -> list[SearchResult]:
    """The k best images or captions for a text or an image, best first.

    Args:
        text, image: the query: either a text or an image's path.
        rerank: number of nearest items to re-rank by cosine + matching logit; 0: none.
        exact: scan the vectors even if the index has an approximate structure.

    Raises:
        ImageProblem: the query's image can't be opened.
        CheckpointError: the model has no matching head, and ``rerank`` asks for it.
    """
    if rerank:
        family.require("match")
    features: Batch = {}
    with torch.inference_mode():
        if image:
            features = family.encode_images(family.pixels([open_image(image)]))
            vector = family.embed_images(features)[0].float().cpu().numpy()
        else:
            vector = embed_texts(family, [text], 1)[0].numpy()
    query = np.asarray(vector, np.float32)
    nearest = index.nearest(query, index.where(kind, conditions), max(k, rerank), exact=exact)
    logits: list[float | None] = [None] * len(nearest)
    if rerank and nearest:
        logits = _matched(index, family, [row for row, _ in nearest], text, features, kind)
    order = sorted(range(len(nearest)), key=lambda position: -(nearest[position][1] + (logits[position] or 0.0)))[:k]
    captions = _captions(index, [nearest[position][0] for position in order], query)
    results = []
    for rank, position in enumerate(order, 1):
        row, cosine = nearest[position]
        hit = Hit(query=image or text, candidate=index.item(row)["id"], rank=rank, itc=cosine, itm=logits[position])
        results.append(SearchResult(hit, row, captions[row]))
    return results


def _captions(index: Index, rows: Sequence[int], query: Floats) -> dict[int, tuple[str, ...]]:
    """Row → ``SearchResult.captions``."""
    items = {row: index.item(row) for row in rows}
    paths = pa.array({item["image"] for item in items.values() if item["kind"] == "image"}, pa.string())
    same = pc.and_(pc.equal(index.table["kind"], "text"), pc.is_in(index.table["image"], value_set=paths))
    of_image: dict[str, list[int]] = {}
    for row in np.flatnonzero(same.to_numpy()).tolist():
        of_image.setdefault(index.item(row)["id"].rpartition("#")[0], []).append(row)
    captions: dict[int, tuple[str, ...]] = {}
    for row, item in items.items():
        if item["kind"] == "text":
            captions[row] = (item["text"],)
            continue
        texts = np.array(of_image.get(item["id"], []), np.int64)
        nearest = index.nearest(query, texts, len(texts), exact=True)
        captions[row] = tuple(index.item(text)["text"] for text, _ in nearest)
    return captions


def _matched(
    index: Index, family: RetrievalFamily, rows: Sequence[int], text: str, query: Batch, kind: Kind
) -> list[float | None]:
    """Matching logits of the query with each row; None between two images, because the head compares image and text."""
    if text and kind == "image":
        matching = family.matching([text])
        scores: list[float | None] = []
        for row in rows:
            with torch.inference_mode():
                features = family.encode_images(family.pixels([open_image(index.item(row)["image"])]))
            scores.append(float(matching.scores(features, torch.zeros(1, dtype=torch.int64))[0]))
        return scores
    if query and kind == "text":
        matching = family.matching([index.item(row)["text"] for row in rows])
        return [float(score) for score in matching.scores(query, torch.arange(len(rows)))]
    return [None] * len(rows)
