"""What went wrong with one row of a source: counted, listed, and never silently dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cutline.images.open import IMAGE_REASONS

#: Why an address gives no image; ``transfer.IS_TRANSIENT`` says which of them may pass.
FETCHING = {
    "bad_address": "an address that is none",
    "private_address": "an address that leads into a private network",
    "not_found": "an address without an image (404, 410)",
    "refused": "an address that the server keeps closed (401, 403, 451)",
    "http_error": "another error that the server blames on the request",
    "server_error": "an error of the server, in every try",
    "too_many_requests": "a server that asks to wait (429), longer than longest_wait_s or in every try",
    "redirects": "too many redirects, or one to nowhere",
    "opted_out": "an image whose server asks machines to leave it alone (X-Robots-Tag)",
    "too_large": "a body of more than max_bytes",
    "dns": "a host whose name leads nowhere",
    "connection": "a connection that wasn't made or broke, in every try",
    "cut_off": "a body that ended too early, in every try",
    "timeout": "no answer, or a body that didn't end, in time, in every try",
    "tls": "a server that can't prove to be who it says",
}

#: Reason → what happened. With each of these a row of the source is lost …
LOSSES = (
    {
        "bad_row": "a row that can't be understood",
        "caption_without_image": "a caption whose image the source doesn't list or have",
        "duplicate_id": "a second sample with an id that was there before",
        "no_caption": "an image without any caption",
        "no_image": "an article without any image",
    }
    | {reason: f"an image that is {reason.replace('_', ' ')}" for reason in IMAGE_REASONS}
    | FETCHING
)

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
