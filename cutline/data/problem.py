"""What went wrong with one row of a source: counted, listed, and never silently dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cutline.data.images import IMAGE_REASONS

#: Reason → what happened. With each of these and of ``IMAGE_REASONS``, a row of the source is lost …
LOSSES = {
    "bad_row": "a row that can't be understood",
    "caption_without_image": "a caption whose image the source doesn't list or have",
    "duplicate_id": "a second sample with an id that was there before",
    "no_caption": "an image without any caption",
} | {reason: f"an image that is {reason.replace('_', ' ')}" for reason in IMAGE_REASONS}

#: … and with these something was mended, and the sample is kept.
MENDED = {
    "empty_caption": "an empty caption, left out",
    "split_conflict": "an image whose rows name different splits; it went to the first",
    "no_split": "a sample without a split where others have one; it follows its group, or goes to train",
    "divided_group": "a group that the source's own splits divide: the scores will flatter",
    "divided_image": "the same picture in two of the source's own splits: the scores will flatter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One line of ``problems.jsonl``.

    Attributes:
        id: the sample's id, or the nearest thing to one ("captions.csv, line 12").
        reason: a key of ``LOSSES`` or ``MENDED``.
        detail: what exactly, in a few words.
    """

    id: str
    reason: str
    detail: str

    @property
    def loses_row(self) -> bool:
        return self.reason in LOSSES

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
