"""The record types that verbs exchange. Each is frozen, typed, and has one form on disk.

A verb reads records of one type from a file and writes records of the next type to a file, so every verb can be
stopped, resumed, rerun and looked into with ordinary tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: Outcome for an image. ``ok``: a caption was generated. ``failed``: no caption, and ``error`` says why.
Status = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its captions.

    Attributes:
        id: unique within the dataset.
        image: path of the image file.
        captions: the reference captions, none to many.
        split: "train", "val", "test" or any other name; "" when the source doesn't say.
        group: what must not be divided between splits (an article, a near-duplicate set); the id when unknown.
        context: text that may stand in the prompt, by field ("headline", "location", …); never a target.
        extra: whatever else the source said, kept as it was.
    """

    id: str
    image: str
    captions: tuple[str, ...] = ()
    split: str = ""
    group: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model said about one image; one line of ``predictions.jsonl``.

    Attributes:
        id: the sample's id (or the image's path).
        caption: the caption; None when there is none. Never invented.
        logprob: log-probability of the generated tokens under the model, in nats.
        status: "ok" or "failed".
        error: why there is no caption ("truncated: …"); None when there is one.
        tokens: number of generated tokens, the end token included.
        finished: whether the model ended the caption by itself (False: cut at the length limit).
    """

    id: str
    caption: str | None = None
    logprob: float | None = None
    status: Status = "ok"
    error: str | None = None
    tokens: int = 0
    finished: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prediction:
        return cls(**{name: row[name] for name in cls.__slots__ if name in row})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One candidate found for one query; one line of ``hits.jsonl``.

    Attributes:
        query: id of the query (an image, a caption).
        candidate: id of the candidate.
        rank: 1 is best.
        itc: cosine of the two embeddings (image–text contrastive score).
        itm: raw logit of the image–text matching head; None when no matcher ran.
    """

    query: str
    candidate: str
    rank: int
    itc: float
    itm: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ScoreInfo:
    """What people need to know to read a score. Each metric declares one for every score it returns.

    Attributes:
        name: as in ``scores.json``, recipes and ``--metrics`` ("cider").
        label: as in tables and reports ("CIDEr-D").
        meaning: one plain sentence.
        unit: "share" for a fraction of something, which is printed in per cent; "words"; "" for a number without unit.
        higher_is_better: None where neither direction is better (a caption's length).
    """

    name: str
    label: str
    meaning: str
    unit: str = ""
    higher_is_better: bool | None = True

    @property
    def lower_is_better(self) -> bool:
        return self.higher_is_better is False

    def format(self, value: float, digits: int = 3) -> str:
        """A value as it is printed, without its unit.

        Args:
            digits: after the point; a share in per cent and a number of words have two fewer.
        """
        if self.unit == "share":
            return f"{100 * value:.{digits - 2}f}"
        if self.unit == "words":
            return f"{value:.{digits - 2}f}"
        return f"{value:.{digits}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The value of one score over a set of images.

    Attributes:
        metric: the score's name ("cider", "bleu4", …).
        value: over the whole set, in the score's own unit (a share is between 0 and 1).
        low, high: 95 % bootstrap interval over images (groups resampled together).
        n: number of images.
        signature: how the number came about: metric and version, tokenizer, references, case, smoothing.
        per_image: one value an image, in the order of the references; written beside, not into, ``scores.json``.
        info: label, meaning, unit and direction; by default those of a score that goes by its name.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    signature: str
    per_image: tuple[float, ...] = ()
    info: ScoreInfo = ScoreInfo("", "", "")

    def __post_init__(self) -> None:
        if not self.info.name:
            object.__setattr__(self, "info", ScoreInfo(self.metric, self.metric, ""))

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        del row["per_image"]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Score:
        known = {name: row[name] for name in cls.__slots__ if name in row}
        if "info" in known:
            known["info"] = ScoreInfo(**known["info"])
        return cls(**known)
