"""Caption bootstrapping: a captioner writes captions for web images, a matcher drops what doesn't fit, the rest joins.

Source: CapFilt, BLIP (Li et al. 2022, arXiv:2201.12086, section 3.3): captions are drawn by nucleus sampling; web and
synthetic captions that the matching head takes for no pair are dropped; what is left, and human captions, train anew.

    made-by.json         what all this was made from
    synthetic-<n>.jsonl  predictions, one line an image
    scores.jsonl         one line an image: each caption with its kind and its log-odds to match
    captions.jsonl       every caption with what became of it
    dataset/             the human dataset and the web images that kept a caption
    report.html          what was kept and dropped, with pictures

Killed at any moment, the same call goes on where it stopped, to the same files.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from cutline.bootstrap.captions import Candidate, chosen, counts, from_rows, of_image
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
    """What came out.

    Attributes:
        counts: kind → captions and how many of them were kept.
        candidates, stays: the captions, and which of them.
        failed: image → why it has no score.
        merged: the dataset.
        uncaptioned: synthetic captions that could not be made.
    """

    counts: Mapping[str, Mapping[str, int]]
    candidates: Sequence[Candidate]
    stays: Sequence[bool]
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
    """Does one round, or goes on with it.

    Args:
        captioner: what writes; None where ``settings.captions`` is 0.
        matcher: the filter.
        web: images with the captions found beside them, if any.
        human: what the kept captions join; None: they make a dataset of their own.
        settings: the ``[bootstrap]`` section.
        folder: where everything is kept.
        made_by: what decides about captions and scores, besides what ``settings`` says.
        bars: shows the progress.

    Raises:
        CutlineError: the folder holds another round.
        DataError: no caption is kept.
    """
    matcher.require("match")
    decides = settings.model_dump(mode="json", include={"captions", "generate"})
    now = {**made_by, "web": web.fingerprint, **decides}
    check_made_by(folder / "made-by.json", now, folder, "Give another --out, or --overwrite.")
    written = _write(captioner, web, settings, folder, made_by, bars) if settings.captions else []
    failed = _score(cast("RetrievalFamily", matcher), web, written, folder / "scores.jsonl", bars)
    candidates = list(from_rows(jsonl.read(folder / "scores.jsonl")))
    stays = chosen(candidates, settings.keep)
    rows = (one.to_json(stay) for one, stay in zip(candidates, stays, strict=True))
    write_atomically(folder / "captions.jsonl", "".join(jsonl.dumps(row) + "\n" for row in rows))
    if not any(stays):
        raise DataError(
            f"The filter drops all {len(candidates):,} captions.",
            "Lower [bootstrap.keep] threshold, or give a share; captions.jsonl has the scores.",
        )
    merged = merge(human, web, candidates, stays, folder / "dataset")
    uncaptioned = sum(row.status == "failed" for rows_of in written for row in rows_of.values())
    return Bootstrapped(counts(candidates, stays), candidates, stays, failed, merged, uncaptioned)


def forget(folder: Path) -> None:
    """Removes a round, and nothing else that stands beside it."""
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
    """The synthetic captions, a file for each drawing; each has a seed of its own."""
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
    """Log-odds of every caption with its image, from what the file holds on; returns what is wrong with images."""
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
    """A line for each image: its captions, or what is wrong with it. The image is seen once for all of them."""
    pixels, wrong = opened(family, chunk)
    features = iter(family.split_features(family.encode_images(pixels)) if pixels is not None else ())
    captions = [
        of_image(sample, [rows[sample.id].caption for rows in written if rows[sample.id].caption is not None])
        for sample in chunk
    ]
    matching = family.matching([text for of in captions for text, _ in of])
    rows, first = [], 0
    for place, (sample, of) in enumerate(zip(chunk, captions, strict=True)):
        row: dict[str, Any] = {"image": sample.id, "captions": []}
        if place in wrong:
            row["error"] = wrong[place]
        else:
            seen = family.join_features([next(features)])
            odds = matching.log_odds(seen, torch.arange(first, first + len(of))).tolist() if of else []
            row["captions"] = [[*one, round(value, 5)] for one, value in zip(of, odds, strict=True)]
        rows.append(row)
        first += len(of)
    return rows


def words(found: Bootstrapped) -> list[str]:
    """What was kept, in sentences."""
    told = [
        f"{kind}: {of['kept']:,} of {of['captions']:,} captions kept ({of['kept'] / of['captions']:.1%})"
        for kind, of in found.counts.items()
    ]
    merged = found.merged
    told.append(f"images: {merged.human:,} human, {merged.web:,} of {merged.of:,} web images")
    if merged.held_out:
        told.append(f"{merged.held_out:,} web images are pictures of the human val or test split, and were left out")
    if found.failed or found.uncaptioned:
        told.append(
            f"{len(found.failed):,} images could not be scored; {found.uncaptioned:,} synthetic captions are missing"
        )
    return told
