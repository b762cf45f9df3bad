"""What went wrong with one row of a source: counted, listed, and never silently dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cutline.images.open import IMAGE_REASONS

#: Why an address gives no image; ``transfer.IS_TRANSIENT`` says which of them may pass.
FETCHING = {
    "bad_address": "not a valid URL",
    "private_address": "a URL that leads into a private network",
    "not_found": "nothing at the URL (404, 410)",
    "refused": "access denied by the server (401, 403, 451)",
    "http_error": "another client error (4xx)",
    "server_error": "a server error (5xx) in every try",
    "too_many_requests": "too many requests (429) in every try, or a wait longer than longest_wait_s",
    "redirects": "too many redirects, or an invalid one",
    "opted_out": "the server opts the image out of machine use (X-Robots-Tag)",
    "too_large": "a body larger than max_bytes",
    "dns": "a host name that can't be resolved",
    "connection": "connection refused or lost, in every try",
    "cut_off": "an incomplete body, in every try",
    "timeout": "a timeout in every try",
    "tls": "an invalid TLS certificate",
}

#: Reason → what happened. With each of these a row of the source is lost …
LOSSES = (
    {
        "bad_row": "a row that can't be understood",
        "caption_without_image": "a caption whose image is not in the source",
        "duplicate_id": "a second sample with the same id",
        "no_caption": "an image without any caption",
        "no_image": "an article without any image",
    }
    | {reason: f"an image that is {reason.replace('_', ' ')}" for reason in IMAGE_REASONS}
    | FETCHING
)

#: … and with these something was fixed, and the sample is kept.
MENDED = {
    "empty_caption": "an empty caption, removed",
    "split_conflict": "an image whose rows name different splits; the first is used",
    "no_split": "a sample without a split where others have one; it gets its group's split, or train",
    "divided_group": "a group in several of the source's splits: scores will be too high",
    "divided_image": "the same image in two of the source's splits: scores will be too high",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One line of ``problems.jsonl``.

    Attributes:
        id: the sample's id, or the nearest thing to one ("captions.csv, line 12").
        reason: a key of ``LOSSES`` or ``MENDED``, or of the ``REASONS`` of a step.
        detail: what exactly, in a few words.
        step: the step that took the sample out because the recipe wants it so; "" otherwise.
    """

    id: str
    reason: str
    detail: str
    step: str = ""

    @property
    def loses_row(self) -> bool:
        return self.reason in LOSSES and not self.step

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "step" or value}
