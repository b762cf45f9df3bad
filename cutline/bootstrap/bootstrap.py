"""Caption bootstrapping: a captioner captions web images, a matcher drops captions that don't fit, the rest is kept.

Source: CapFilt, BLIP (Li et al. 2022, arXiv:2201.12086, section 3.3): synthetic captions are nucleus-sampled; web
and synthetic captions that the matching head rejects are dropped; the others join the human captions for training.

    made-by.json         models, datasets and settings
    synthetic-<n>.jsonl  predictions, one line per image
    scores.jsonl         one line per image: each caption with its kind and matching log-odds
    captions.jsonl       every caption, and whether it is kept
    dataset/             the human dataset and the web images with a kept caption
    report.html          kept and dropped captions, with pictures

An interrupted round resumes with the same call, and ends with the same files.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from cutline.bootstrap.captions import ScoredCaption, chosen, counts, from_rows, of_image
from cutline.bootstrap.merge import Merged, merge
from cutline.bootstrap.settings import BootstrapSettings
from cutline.caption.files import PredictionFile
from cutline.caption.job import CaptionJob
from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.core.files import write_atomically
from cutline.core.made_by import check_made_by
from cutline.core.progress import Bars, silent
from cutline.core.records import Sample
from cutline.data.dataset import Dataset
from cutline.families.base import Family
from cutline.families.common.retrieval import RetrievalFamily
from cutline.retrieve.embed import chunks, opened

_FILES = ("made-by.json", "scores.jsonl", "captions.jsonl", "report.html")


@dataclass(frozen=True)
class Bootstrapped:
    """The result of a round.

    Attributes:
        counts: kind → number of captions, and of kept captions.
        captions, kept: the scored captions, and whether each is kept.
        failed: image id → error, for images without a score.
        merged: the merged dataset.
        uncaptioned: number of synthetic captions that failed.
    """

    counts: Mapping[str, Mapping[str, int]]
    captions: Sequence[ScoredCaption]
    kept: Sequence[bool]
    failed: Mapping[str, str]
    merged: Merged
    uncaptioned: int = 0


def bootstrap(
    captioner: Family | None,
    matcher: Family,
    web: Dataset,
    human: Dataset | None,
    settings: BootstrapSettings,
    folder: Path,
    made_by: Mapping[str, Any],
    bars: Bars = silent,
) -> Bootstrapped:
    """Runs one round, or resumes it.

    Args:
        captioner: writes the synthetic captions; None if ``settings.captions`` is 0.
        matcher: scores the captions.
        web: web images with their captions, if they have any.
        human: dataset that the kept captions join; None: they become a dataset of their own.
        settings: the ``[bootstrap]`` section.
        folder: output folder.
        made_by: everything besides ``settings`` that captions and scores depend on.
        bars: shows progress.

    Raises:
        CutlineError: the folder holds another round.
        DataError: no caption is kept.
    """
    matcher.require("match")
    generation = settings.model_dump(mode="json", include={"captions", "generate"})
    now = {**made_by, "web": web.fingerprint, **generation}
    check_made_by(folder / "made-by.json", now, folder, "Give another --out, or --overwrite.")
    written = _write(captioner, web, settings, folder, made_by, bars) if settings.captions else []
    matching = cast("RetrievalFamily", matcher)  # what can match is one
    failed = _score(matching, web, written, folder / "scores.jsonl", bars)
    captions = list(from_rows(jsonl.read(folder / "scores.jsonl")))
    kept = chosen(captions, settings.keep)
    rows = (caption.to_json(keep) for caption, keep in zip(captions, kept, strict=True))
    write_atomically(folder / "captions.jsonl", "".join(jsonl.dumps(row) + "\n" for row in rows))
    if not any(kept):
        raise DataError(
            f"The filter drops all {len(captions):,} captions.",
            "Lower [bootstrap.keep] threshold, or give a share; captions.jsonl has the scores.",
        )
    merged = merge(human, web, captions, kept, folder / "dataset")
    uncaptioned = sum(row.status == "failed" for predictions in written for row in predictions.values())
    return Bootstrapped(counts(captions, kept), captions, kept, failed, merged, uncaptioned)


def forget(folder: Path) -> None:
    """Removes the files of a round; other files in the folder stay."""
    shutil.rmtree(folder / "dataset", ignore_errors=True)
    for path in [*folder.glob("synthetic-*.jsonl*"), *(folder / name for name in _FILES)]:
        path.unlink(missing_ok=True)


def _write(
    captioner: Family | None,
    web: Dataset,
    settings: BootstrapSettings,
    folder: Path,
    made_by: Mapping[str, Any],
    bars: Bars,
) -> list[dict[str, Any]]:
    """The synthetic captions, one file per caption of an image; each file has its own seed."""
    predictions = []
    for number in range(settings.captions):
        generate = settings.generate.model_copy(update={"seed": settings.generate.seed + number})
        file = PredictionFile(folder / f"synthetic-{number}.jsonl", {**made_by, "generate": generate.model_dump()})
        job = CaptionJob(file, web)
        if job.remaining:
            if captioner is None:
                raise CutlineError("Synthetic captions need a captioner.", "Give one, or set captions = 0.")
            captioner.require("caption")
            with bars("captioning") as progress:
                job.run(captioner, generate, progress)
        predictions.append(job.predictions)
    return predictions


def _score(
    family: RetrievalFamily, web: Dataset, written: Sequence[Mapping[str, Any]], path: Path, bars: Bars
) -> dict[str, str]:
    """Scores every caption with its image; resumes the file. Returns image id → error."""
    samples = list(web)
    with jsonl.Appender(path) as out, bars("filtering") as progress:
        known = {row["image"]: row for row in jsonl.read(path)}
        done = len(known)
        for chunk in chunks(samples, family):
            if all(sample.id in known for sample in chunk):
                continue
            rows = _scored(family, chunk, written)
            new = [row for row in rows if row["image"] not in known]
            out.write(new)
            done += len(new)
            progress(done, len(samples))
            known |= {row["image"]: row for row in new}
    return {id: row["error"] for id, row in known.items() if row.get("error")}


@torch.inference_mode()
def _scored(
    family: RetrievalFamily, chunk: Sequence[Sample], written: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One row per image: its scored captions, or its error. Each image is encoded once for all its captions."""
    pixels, errors = opened(family, chunk)
    features = iter(family.split_features(family.encode_images(pixels)) if pixels is not None else ())
    captions = [
        of_image(sample, [rows[sample.id].caption for rows in written if rows[sample.id].caption is not None])
        for sample in chunk
    ]
    matching = family.matching([text for of in captions for text, _ in of])
    rows, first = [], 0
    for index, (sample, of) in enumerate(zip(chunk, captions, strict=True)):
        row: dict[str, Any] = {"image": sample.id, "captions": []}
        if index in errors:
            row["error"] = errors[index]
        else:
            image = family.join_features([next(features)])
            odds = matching.log_odds(image, torch.arange(first, first + len(of))).tolist() if of else []
            row["captions"] = [[*one, round(value, 5)] for one, value in zip(of, odds, strict=True)]
        rows.append(row)
        first += len(of)
    return rows


def summary(result: Bootstrapped) -> list[str]:
    """The result in sentences."""
    sentences = [
        f"{kind}: {of['kept']:,} of {of['captions']:,} captions kept ({of['kept'] / of['captions']:.1%})"
        for kind, of in result.counts.items()
    ]
    merged = result.merged
    sentences.append(f"images: {merged.human:,} human, {merged.web:,} of {merged.of:,} web images")
    if merged.held_out:
        sentences.append(f"{merged.held_out:,} web images left out: they are in the human val or test split")
    if result.failed or result.uncaptioned:
        sentences.append(
            f"{len(result.failed):,} images could not be scored; {result.uncaptioned:,} synthetic captions are missing"
        )
    return sentences
