"""Evaluates retrieval: every image of a split is a query for its captions, and every caption for its image.

    embeddings/      the images' vectors, one file per chunk
    matches.jsonl    one line per image: its matching scores with the texts that it is paired with
    hits.jsonl       best candidates of each query, both directions
    scores.json      recall at 1, 5, 10, mean and median rank; the same by embeddings alone and by chance
    retrieval.json   model, dataset and settings

An interrupted evaluation resumes from the embeddings and the matches.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutline.core import jsonl
from cutline.core.errors import CheckpointError, DataError
from cutline.core.files import write_atomically
from cutline.core.made_by import check_made_by
from cutline.core.progress import Bars, silent
from cutline.core.records import Hit, Sample, Score
from cutline.families.base import Batch
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.weights.dtypes import dtype_name
from cutline.metrics.evaluation import Evaluation
from cutline.retrieve import recall
from cutline.retrieve.embed import chunks, embed_images, embed_texts, opened, tokens
from cutline.retrieve.gallery import Gallery, Indices, gather
from cutline.retrieve.rerank import distinct_pairs, rerank
from cutline.retrieve.settings import RetrieveSettings
from cutline.retrieve.stages import Direction, Stages, first_stage
from cutline.retrieve.verify import Verified, verify

logger = logging.getLogger(__name__)

#: Candidates to keep per query without re-ranking; hits.jsonl can list no more.
LISTED = 128


def evaluate(
    family: RetrievalFamily,
    samples: Sequence[Sample],
    settings: RetrieveSettings,
    folder: Path,
    made_by: Mapping[str, Any],
    exact: RetrievalFamily | None = None,
    bars: Bars = silent,
) -> Evaluation:
    """Both directions of retrieval over samples, from one pass over the pairs.

    Args:
        family: the model.
        samples: images; those without captions are left out.
        folder: output folder; an evaluation in it is resumed.
        made_by: everything that the scores depend on.
        exact: the same model in float32, for ``settings.verify``: it embeds, and scores pairs that are nearly equal.
        bars: shows progress.

    Raises:
        CutlineError: the folder holds another evaluation.
        CheckpointError: ``rerank`` is set, but the matching head is untrained.
        DataError: no sample has captions, or no image can be opened.
    """
    matched = _matches(family, settings)
    check_made_by(folder / "retrieval.json", made_by, folder, "Give another --out, or --overwrite.")
    embedder = exact or family
    gallery = gather(samples, lambda texts: tokens(embedder, texts))
    if not gallery.samples:
        raise DataError("No image of this dataset has a caption.", "Retrieval is evaluated on images with captions.")
    with bars("embedding") as progress:
        images, failed = embed_images(embedder, gallery.pictures, folder / "embeddings", progress)
    for index, problem in failed.items():
        logger.warning(f"skipped: {gallery.pictures[index].id}: {problem}")
    if len(failed) == len(gallery.pictures):
        raise DataError("None of the images could be opened.", "Run cutline inspect on the dataset to see why.")
    kept = torch.tensor([index not in failed for index in range(len(images))])
    images, gallery = images[kept], gallery.without(failed)
    texts = embed_texts(embedder, gallery.texts, settings.text_batch_size)
    stages = _stages(gallery, images, texts, settings, embedder)
    verified = None
    if matched:
        verified = _match(family, stages, folder / "matches.jsonl", exact, bars)
    return _judge(stages, settings, folder, matched, dtype_name(family.dtype), verified)


def _matches(family: RetrievalFamily, settings: RetrieveSettings) -> bool:
    """Whether the matching head ranks again. An untrained one doesn't by default, and is an error if asked for."""
    if not settings.rerank or "match" not in family.tasks:
        return False
    if "match" not in family.untrained_tasks:
        return True
    if "rerank" in settings.model_fields_set:
        raise CheckpointError(
            f"rerank = {settings.rerank}, but this model's matching head is not trained.",
            "Set [retrieve] rerank = 0 (--rerank 0), or train the head ([train.retrieval] itm).",
        )
    logger.warning("this model's matching head is not trained: ranking by embeddings alone")
    return False


def forget(folder: Path) -> None:
    """Removes the files of an evaluation; other files in the folder stay."""
    shutil.rmtree(folder / "embeddings", ignore_errors=True)
    for name in ("matches.jsonl", "hits.jsonl", "scores.json", "retrieval.json"):
        (folder / name).unlink(missing_ok=True)


def _stages(
    gallery: Gallery, images: Tensor, texts: Tensor, settings: RetrieveSettings, family: RetrievalFamily
) -> Stages:
    """The first stage: the nearest candidates by cosine."""
    k = settings.rerank or LISTED
    for kind, count in (("captions", len(gallery.text_of)), ("images", len(gallery.samples))):
        if settings.rerank > count:
            logger.warning(f"rerank = {k} is more than the {count:,} {kind}: all of them are candidates")
    return first_stage(gallery, images, texts, family.similarity, k)


class Features:
    """Features of one picture at a time, computed chunk by chunk."""

    def __init__(self, family: RetrievalFamily, pictures: Sequence[Sample]):
        self.family, self.parts = family, chunks(pictures, family)
        self.size = len(self.parts[0])
        self.number, self.features = -1, list[Batch]()

    def __call__(self, picture: int) -> Batch:
        number, index = divmod(picture, self.size)
        if number != self.number:
            pixels, errors = opened(self.family, self.parts[number])
            if errors or pixels is None:
                first = min(errors)
                path = self.parts[number][first].image
                raise DataError(f"{path} can no longer be opened: {errors[first]}", "Start again with --overwrite.")
            with torch.inference_mode():
                self.features = self.family.split_features(self.family.encode_images(pixels))
            self.number = number
        return self.family.join_features([self.features[index]])


def _match(
    family: RetrievalFamily, stages: Stages, path: Path, exact: RetrievalFamily | None, bars: Bars
) -> Verified | None:
    """The second stage: matching scores; those that the file holds are not computed again."""
    total = distinct_pairs(stages.texts_of_images, stages.images_of_texts)
    pictures = [sample.id for sample in stages.gallery.pictures]
    index_of = {id: index for index, id in enumerate(pictures)}
    with jsonl.Appender(path) as out, bars("matching") as progress:
        done = {
            index_of[row["image"]]: torch.tensor(row["itm"]) for row in jsonl.read(path) if row["image"] in index_of
        }
        count = sum(map(len, done.values()))
        progress(count, total)
        matching = family.matching(stages.gallery.texts)
        features = Features(family, stages.gallery.pictures)
        for picture, scores in rerank(matching, features, stages.texts_of_images, stages.images_of_texts, done):
            out.write([{"image": pictures[picture], "itm": scores.tolist()}])
            count += len(scores)
            progress(count, total)
    if exact is None:
        return None
    with bars("verifying") as progress:
        return verify(
            exact.matching(stages.gallery.texts),
            Features(exact, stages.gallery.pictures),
            stages.gallery,
            stages.texts_of_images,
            stages.images_of_texts,
            progress,
        )


def _judge(
    stages: Stages, settings: RetrieveSettings, folder: Path, matched: bool, dtype: str, verified: Verified | None
) -> Evaluation:
    """Scores both directions, and writes ``hits.jsonl`` and ``scores.json``."""
    gallery, counts = stages.gallery, stages.gallery.counts()
    groups = [sample.group or sample.id for sample in gallery.samples]
    scores: dict[str, Score] = {}
    alone: dict[str, Score] = {}
    kept = {}
    for direction in stages.directions:
        name, owner = direction.name, direction.query_samples
        against, favoured = direction.ranks(matched=False)
        size = min(settings.rerank, len(direction.candidate_ids))
        sign = (
            f"retrieval-{name}|best rank|ties against|images {counts['images']}|captions {counts['captions']}"
            f"|embedded {'float32' if verified else dtype}"
        )
        alone |= recall.score(name, against, owner, groups, settings.resamples, sign)
        if matched:
            kept[name] = direction.kept()
            against, favoured = direction.ranks(matched=True)
            sign += f"|cosine + matching logit of {size} candidates, {dtype}{', verified' if verified else ''}"
        scores |= recall.score(name, against, owner, groups, settings.resamples, sign)
        counts[f"{name}_tied_ranks"] = int((against != favoured).sum())
    chance = {
        name: Score(
            metric=name,
            value=value,
            low=value,
            high=value,
            n=counts["images"],
            signature="chance",
            info=recall.score_info(name),
        )
        for name, value in recall.chance(gallery).items()
    }
    ceilings = recall.ceiling(kept)
    counts |= verified.counts if verified else {}
    result = Evaluation(
        scores=scores,
        baselines=({"embeddings alone": alone} if matched else {}) | {"chance": chance},
        counts=counts,
        notes={
            name: f"{value:.4f} of the queries have a correct candidate in the first stage"
            for name, value in ceilings.items()
        },
        ids=tuple(gallery.ids),
    )
    _write_hits(stages, settings.hits, folder / "hits.jsonl")
    write_atomically(folder / "scores.json", json.dumps(result.to_json(), indent=2) + "\n")
    return result


def _write_hits(stages: Stages, limit: int, path: Path) -> None:
    """Writes the hits of both directions, query by query."""
    path.unlink(missing_ok=True)
    with jsonl.Appender(path) as out:
        for direction in stages.directions:
            queries, candidates = _items(direction.query_rows), _items(direction.candidate_rows)
            order = direction.candidates.scores().argsort(dim=1, descending=True, stable=True)
            for row, slots in enumerate(order):
                for query in queries.get(row, []):
                    out.write(hit.to_json() for hit in _hits(direction, query, slots, candidates, limit))


def _hits(
    direction: Direction, query: int, slots: Tensor, items: Mapping[int, Sequence[int]], limit: int
) -> Iterator[Hit]:
    """The best candidates of a query, and the correct ones at any rank.

    Args:
        slots: [K] columns of ``direction.candidates``, best first.
        items: row → the captions or images that it stands for.
        limit: number of best candidates.
    """
    row, nearest = int(direction.query_rows[query]), direction.candidates
    rank = 0
    for slot in slots[: int(nearest.cosines[row].isfinite().sum())].tolist():
        itm = None if nearest.matches is None else float(nearest.matches[row, slot])
        for candidate in items.get(int(nearest.indices[row, slot]), []):
            rank += 1
            if rank <= limit or direction.candidate_samples[candidate] == direction.query_samples[query]:
                yield Hit(
                    query=direction.query_ids[query],
                    candidate=direction.candidate_ids[candidate],
                    rank=rank,
                    itc=float(nearest.cosines[row, slot]),
                    itm=itm,
                )


def _items(rows: Indices) -> dict[int, list[int]]:
    """Row → the captions or images that it stands for, in their order."""
    items: dict[int, list[int]] = {}
    for item, row in enumerate(rows.tolist()):
        items.setdefault(row, []).append(item)
    return items
