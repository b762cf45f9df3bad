"""Takes out what would teach a model nothing: bad captions by rules, small or odd-shaped images, low scores."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.core.errors import CutlineError, RecipeError
from cutline.core.fingerprint import checkpoint_fingerprint
from cutline.core.memo import Remembered
from cutline.core.records import Sample
from cutline.core.text import split_words
from cutline.data.step import Drop, OpenScorer, Scorer, Workspace

DESCRIPTION = "samples → those with captions and images that are good enough"
PHASE: Literal["checked"] = "checked"
ORDER = 10
REASONS = {
    "short_caption": "all captions have fewer words than min_words",
    "long_caption": "all captions have more words than max_words",
    "language": "no caption is in one of the languages",
    "boilerplate": "the captions are credits, file names, invitations to click",
    "poor_caption": "the captions repeat themselves, shout, or are hardly words",
    "small_image": "a side of the image is shorter than min_side_px",
    "aspect": "the image is longer and thinner than max_aspect",
    "low_score": "no caption reaches min_score",
}


class FilterSettings(Section):
    """[data.steps.filter]: each rule takes captions out; a sample goes when none of its captions is left."""

    min_words: int = Field(default=3, ge=0, description="shortest caption, in words")
    max_words: int = Field(default=200, ge=1, description="longest caption, in words")
    languages: list[str] = Field(
        default=[],
        description='languages of captions by their ISO codes, ["en"]; [] allows all. Short captions are guesses',
    )
    boilerplate: bool = Field(
        default=True, description="remove captions that are credits, file names or invitations to click"
    )
    quality: bool = Field(
        default=True,
        description="remove captions that mostly repeat one word, are in capitals, or have no letters",
    )
    min_side_px: int = Field(default=0, ge=0, description="shortest side of the image before resizing, in px")
    max_aspect: float = Field(default=0, ge=0, description="longer side / shorter side, at most; 0 for any")
    model: str = Field(
        default="",
        description="folder or hub name of a model that scores captions: one that matches (BLIP, BLIP-2) gives a "
        "probability of 0–1, CLIP and SigLIP a cosine of −1–1 (LAION-400M kept 0.3 and more); needs min_score",
    )
    scorer: str = Field(
        default="",
        description='a function "package.module:name" that gets an image\'s path and its captions and returns a score '
        "for each, such as a CLIP or ITM score",
    )
    min_score: float = Field(default=0, description="captions with a lower score are removed")

    @model_validator(mode="after")
    def _has_one_bound(self) -> FilterSettings:
        if self.model and self.scorer:
            raise ValueError("model and scorer both score captions; give one of them")
        if self.model and "min_score" not in self.model_fields_set:
            raise ValueError("model needs min_score, below which a caption is taken out; 0 would keep nearly all")
        return self


SETTINGS = FilterSettings


def open(settings: FilterSettings, workspace: Workspace | None = None) -> Filter:
    if workspace is None:
        return Filter(settings)
    return Filter(settings, workspace.folder / ".work/scores.sqlite", workspace.scorer)


class Filter:
    """Sample → sample with its good captions, or a drop."""

    def __init__(self, settings: FilterSettings, memory: Path | None = None, open_scorer: OpenScorer | None = None):
        """
        Args:
            memory: file for the model's scores, so that a resumed job asks it only once for each image.
            open_scorer: opens the model that the settings name.

        Raises:
            CutlineError: the settings name a model, and nothing was given to open it with.
        """
        self.settings = settings
        self.language = _languages(settings.languages) if settings.languages else None
        self.scorer: Scorer | None = None
        if settings.model or settings.scorer:
            self.scorer = _by_model(settings.model, open_scorer) if settings.model else _scorer(settings.scorer)
        self.model = checkpoint_fingerprint(settings.model) if settings.model else ""
        self._memory = Remembered(memory) if memory and settings.model else None
        self.captions: Counter[str] = Counter()

    def __call__(self, sample: Sample) -> Sample | Drop:
        if fault := self._image(sample):
            return fault
        verdicts = [(caption, self.fault(caption)) for caption in sample.captions]
        good = [caption for caption, fault in verdicts if not fault]
        reasons = [fault for _, fault in verdicts if fault]
        if good and self.scorer:
            scores = self._scores(self.scorer, sample, good)
            reasons += ["low_score" for score in scores if score < self.settings.min_score]
            good = [text for text, score in zip(good, scores, strict=True) if score >= self.settings.min_score]
        if not good and reasons:
            worst = Counter(reasons).most_common(1)[0][0]
            return Drop(worst, f"{sample.captions[0][:100]!r}")
        self.captions.update(reasons)
        return sample if not reasons else replace(sample, captions=tuple(good))

    def _scores(self, scorer: Scorer, sample: Sample, captions: Sequence[str]) -> Sequence[float]:
        if self._memory is None:
            return scorer(sample.image, captions)
        key = json.dumps([self.model, sample.extra.get("sha256", sample.image), *captions])
        known: Sequence[float] | None = self._memory.get(key)
        if known is None:
            known = scorer(sample.image, captions)
            self._memory.put(key, known)
        return known

    def close(self) -> None:
        if self._memory:
            self._memory.close()

    def facts(self) -> dict[str, Any]:
        """Captions that were taken out of samples that stayed, by reason."""
        return {"captions": dict(self.captions)} if self.captions else {}

    def fault(self, caption: str) -> str:
        """What is wrong with a caption: a key of ``REASONS``; "" for nothing."""
        words = caption.split()
        if self.settings.boilerplate and _boilerplate().fullmatch(caption.strip()):
            return "boilerplate"
        if len(words) < self.settings.min_words:
            return "short_caption"
        if len(words) > self.settings.max_words:
            return "long_caption"
        if self.settings.quality and is_poor(caption):
            return "poor_caption"
        if self.language and self.language(caption) not in self.settings.languages:
            return "language"
        return ""

    def _image(self, sample: Sample) -> Drop | None:
        width = sample.extra.get("original_width") or sample.extra.get("width") or 0
        height = sample.extra.get("original_height") or sample.extra.get("height") or 0
        short, long = sorted((int(width), int(height)))
        if short < self.settings.min_side_px:
            return Drop("small_image", f"{width} × {height} px")
        if self.settings.max_aspect and long > self.settings.max_aspect * short:
            return Drop("aspect", f"{width} × {height} px")
        return None


def is_poor(caption: str) -> bool:
    """Whether a caption is hardly language: more marks and digits than letters, one word most of the time, shouting."""
    visible = [char for char in caption if not char.isspace()]
    letters = [char for char in visible if char.isalpha()]
    if not visible or len(letters) < 0.5 * len(visible):
        return True
    words = split_words(caption)
    if len(words) >= 4 and Counter(words).most_common(1)[0][1] > len(words) / 2:
        return True
    cased = [char for char in letters if char.isupper() or char.islower()]
    return len(words) >= 4 and len(cased) >= 12 and sum(char.isupper() for char in cased) > 0.9 * len(cased)


@cache
def _boilerplate() -> re.Pattern[str]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return re.compile("|".join(f"(?:{rule})" for rule in table["boilerplate"]), re.IGNORECASE | re.DOTALL)


def _languages(wanted: Sequence[str]) -> Callable[[str], str]:
    try:
        import py3langid
    except ImportError as error:
        raise CutlineError(
            "Recognising languages needs py3langid, which is not installed.", "Install it: pip install 'cutline[news]'."
        ) from error
    known = {language for language, _ in py3langid.rank("")}
    if unknown := [code for code in wanted if code not in known]:
        raise RecipeError(
            f"data.steps.filter.languages: {unknown[0]!r} is not known.", f"Known: {', '.join(sorted(known))}."
        )
    return lambda caption: str(py3langid.classify(caption)[0])


def _by_model(checkpoint: str, open_scorer: OpenScorer | None) -> Scorer:
    if open_scorer is None:
        raise CutlineError(
            "data.steps.filter.model: there is nothing to open the model with.",
            "Prepare with cutline.prepare or cutline prepare, or pass scorer to the function prepare.",
        )
    return open_scorer(checkpoint)


def _scorer(name: str) -> Scorer:
    module, _, function = name.partition(":")
    try:
        found: Scorer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"data.steps.filter.scorer: {name!r} can't be imported: {error}.", 'Write "package.module:function".'
        ) from error
    return found
