"""What spoils a training or flatters a score, the worst first, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any, Literal

from cutline.data.inspect.captions import CaptionFacts
from cutline.data.inspect.contexts import ContextFacts, FieldFacts
from cutline.data.inspect.pictures import PictureFacts
from cutline.data.problem import LOSSES

#: "leak": scores will be too good. "problem": spoils training or scores. "note": good to know before.
Level = Literal["leak", "problem", "note"]
_LEVELS = ("leak", "problem", "note")

#: Images of a language; fewer are as likely to be wrong guesses.
_FEWEST_OF_A_LANGUAGE = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    Attributes:
        kind: its name for programs.
        says: what was found, with its number; ``matters``: what comes of it; ``remedy``: what to do.
        share: of the images that it is about, 0–1; findings of one level stand in its order.
        examples: ids of images.
    """

    level: Level
    kind: str
    says: str
    matters: str
    remedy: str
    share: float
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def findings(
    captions: CaptionFacts,
    pictures: PictureFacts,
    contexts: ContextFacts | None,
    divided: Mapping[str, Mapping[str, int]],
    problems: Mapping[str, int],
    languages: Mapping[str, int] | None,
) -> tuple[Finding, ...]:
    """All findings, the worst first.

    Args:
        divided: group → images by split, of groups that lie in several splits.
        problems: reason → rows that were lost before any image was looked at.
    """
    images = sum(captions.images.values())
    found = [
        *_leaks(pictures, divided, images), *_of_context(contexts), *_repetition(captions, images),
        *_of_captions(captions, images), *_of_pictures(pictures, images), *_of_rows(problems, images),
        *_of_languages(languages), *_of_splits(captions, images),
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (_LEVELS.index(one.level), -one.share)))


def _leaks(pictures: PictureFacts, divided: Mapping[str, Mapping[str, int]], images: int) -> Iterator[Finding]:
    words = {"exact": "the same picture, byte for byte, in", "near": "a picture that looks like one of"}
    for how, phrase in words.items():
        if many := pictures.repeats.get((how, "between"), 0):
            pair = next(pair for pair in pictures.pairs if pair.how == how and pair.leaks)
            yield Finding(
                level="leak", kind=f"{how}_picture_in_two_splits",
                says=f"{_images(many)} {_has(many)} {phrase} another split: {pair.second} ({pair.splits[1] or 'none'}) "
                f"and {pair.first} ({pair.splits[0] or 'none'}) for one.",
                matters="The model has seen these images in training, so its score says nothing about new images.",
                remedy="Give the splits to [data] val and test with [data.steps.dedup], or take one of each out.",
                share=many / images, examples=(pair.first, pair.second),
            )  # fmt: skip
    if divided:
        group, splits = next(iter(divided.items()))
        many = sum(sum(found.values()) for found in divided.values())
        yield Finding(
            level="leak", kind="group_in_two_splits",
            says=f"{_count(len(divided), 'group')} lie{'s' if len(divided) == 1 else ''} in several splits, {group} "
            f"for one ({', '.join(f'{count} in {split}' for split, count in splits.items())}).",
            matters="Images of one article or scene are alike, so scores are too high.",
            remedy="Leave the splits to [data] val and test, which keep groups together.", share=many / images,
        )  # fmt: skip


def _of_context(contexts: ContextFacts | None) -> Iterator[Finding]:
    if contexts is None:
        return
    for name, field in contexts.fields.items():
        shares = field.shares
        if field.verdict == "leaks":
            yield Finding(
                level="leak", kind="context_gives_caption_away",
                says=f"The context’s {name!r} {why_leaks(field)}.",
                matters="A model that finds the caption in its prompt learns to copy, and its score means nothing.",
                remedy="Take this context from something that is known without the caption, or leave it out.",
                share=max(field.holds_caption / field.images, shares["names_given_away"] or 0), examples=field.examples,
            )  # fmt: skip
        elif field.verdict == "unrelated":
            given, chance = (shares[f"words_given_away{end}"] or 0 for end in ("", "_by_chance"))
            yield Finding(
                level="note", kind="context_unrelated",
                says=f"The context’s {name!r} says no more of its own image’s captions ({given:.1%} of their words) "
                f"than another image’s does ({chance:.1%}).",
                matters="It costs tokens and teaches nothing, or it is matched to the wrong images.",
                remedy="Look at a few, and leave it out if it is unrelated.", share=field.images / max(contexts.of, 1),
            )  # fmt: skip


def why_leaks(field: FieldFacts) -> str:
    """By what a field that leaks gives the captions away, as the end of a sentence."""
    if field.holds_caption:
        return (
            f"holds the caption of {field.holds_caption:,} of {_images(field.images)}, word for word "
            f"({', '.join(field.examples[:2])})"
        )
    if field.is_oracle:
        return "was taken from the caption itself (oracle = true)"
    kinds = ("names", "words")
    kind = max(kinds, key=lambda kind: field.shares[f"{kind}_given_away"] or 0)
    away, own = field.shares[f"{kind}_given_away"] or 0, field.shares[f"own_{kind}_in_captions"] or 0
    return (
        f"seems to be made from the captions: it has {away:.0%} of the {kind} in them, and {own:.0%} of its own {kind} "
        "stand there"
    )


def _repetition(captions: CaptionFacts, images: int) -> Iterator[Finding]:
    several = captions.several
    if several and captions.some_same > 0.01 * several:
        whole = f"{captions.all_same:,} repeat a single caption" if captions.all_same else "none of them only one"
        yield Finding(
            level="problem", kind="captions_repeated_within_images",
            says=f"{captions.some_same:,} of {several:,} images with several captions repeat some of them; {whole}.",
            matters="Repeats are no references: scores against them, and recall by them, count one opinion several "
            "times, and training sees it as often.",
            remedy="Count captions once per image, and don’t compare scores with data sets of independent captions.",
            share=captions.some_same / images,
        )  # fmt: skip
    if captions.shared > 0.05 * images:
        top = captions.frequent[0]
        level: Level = "problem" if captions.no_own > 0.1 * images or captions.shared > 0.25 * images else "note"
        yield Finding(
            level=level, kind="captions_repeated_between_images",
            says=f"{captions.shared:,} of {images:,} images have a caption that another image has, too"
            + (f", and {captions.no_own:,} none of their own" if captions.no_own else "")
            + f". Most often: “{shorten(top.text, 200, placeholder=' …')}” ({top.images:,} images).",
            matters="By such a caption an image can’t be found again, and a model that says it for every image scores.",
            remedy="In retrieval, count every image with the caption as right; look at the constant-caption baseline.",
            share=captions.shared / images,
        )  # fmt: skip
    for split, (known, of) in captions.known.items():
        if known > 0.1 * of:
            yield Finding(
                level="problem", kind="training_captions_in_other_splits",
                says=f"{known:,} of the {of:,} {split or 'other'} images have a caption that a training image has, "
                "word for word.",
                matters="What was learnt by heart scores there; the score says little about saying something new.",
                remedy="Look at the scores’ novelty and at the baselines, and read the score with this in mind.",
                share=known / images,
            )  # fmt: skip


_FAULTS = {
    "boilerplate": "are credits, file names or invitations to click",
    "poor_caption": "repeat one word, shout, or are hardly words",
    "short_caption": "have fewer than three words",
    "long_caption": "have more than 200 words",
}


def _of_captions(captions: CaptionFacts, images: int) -> Iterator[Finding]:
    if without := captions.per_image.get(0, 0):
        yield Finding(
            level="problem" if without < images else "note", kind="no_caption",
            says=f"{_images(without)} {_has(without)} no caption.",
            matters="Nothing can be learnt from them, and nothing compared with them.",
            remedy="[data] captions_required leaves them out, which is its default.", share=without / images,
        )  # fmt: skip
    for fault, phrase in _FAULTS.items():
        many = captions.faults.get(fault, 0)
        if many > 0.001 * max(captions.total, 1):
            yield Finding(
                level="problem" if many > 0.02 * captions.total else "note", kind=fault,
                says=f"{many:,} of {captions.total:,} captions {phrase}.",
                matters="A model learns to say such things of any image.", remedy="[data.steps.filter] takes them out.",
                share=many / captions.total,
            )  # fmt: skip


def _of_pictures(pictures: PictureFacts, images: int) -> Iterator[Finding]:
    broken = sum(pictures.broken.values())
    if broken:
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in pictures.broken.items())
        first = pictures.named[0]
        yield Finding(
            level="problem", kind="broken_images",
            says=f"{_images(broken)} can’t be opened: {reasons}. For one, {first.id}: {first.detail}.",
            matters="They can't be used for training or scoring.",
            remedy="Download them again, or let cutline prepare leave them out.", share=broken / images,
            examples=tuple(problem.id for problem in pictures.named[:5]),
        )  # fmt: skip
    phrases = {"exact": ("comes", "come", "again byte for byte"), "near": ("looks", "look", "like an earlier one")}
    for how, (one, more, rest) in phrases.items():
        if many := pictures.repeats.get((how, "within"), 0):
            pair = next(pair for pair in pictures.pairs if pair.how == how and not pair.leaks)
            yield Finding(
                level="note", kind=f"{how}_picture_twice",
                says=f"{_images(many)} {one if many == 1 else more} {rest} in the same split, {pair.second} and "
                f"{pair.first} for one.",
                matters="They count twice, in training and in scores.",
                remedy="[data.steps.dedup] leaves them out, or keeps them together.", share=many / images,
                examples=(pair.first, pair.second),
            )  # fmt: skip
    sizes = pictures.quantiles()
    if sizes and sizes["short_side"]["median"] < 200:
        yield Finding(
            level="note", kind="small_images",
            says=f"Images are small: the shorter side has {sizes['short_side']['median']:.0f} px (median).",
            matters="Models look at 224 px and more, so these are blown up and hold little detail.",
            remedy="Use the originals if there are any.", share=1.0 if sizes["short_side"]["max"] < 200 else 0.5,
        )  # fmt: skip


def _of_rows(problems: Mapping[str, int], images: int) -> Iterator[Finding]:
    lost = {reason: count for reason, count in problems.items() if reason in LOSSES}
    if many := sum(lost.values()):
        reasons = "; ".join(f"{count:,} × {LOSSES[reason]}" for reason, count in lost.items())
        yield Finding(
            level="problem" if many > 0.01 * images else "note", kind="lost_rows",
            says=f"{_count(many, 'row')} of the source {'is' if many == 1 else 'are'} lost: {reasons}.",
            matters="Rows are seldom lost at random, so the rest may be a biased sample.",
            remedy="problems.jsonl of the prepared dataset names each.", share=many / (many + images),
        )  # fmt: skip


def _of_languages(languages: Mapping[str, int] | None) -> Iterator[Finding]:
    if not languages:
        return
    every, (main, most) = sum(languages.values()), next(iter(languages.items()))
    fewest = max(0.01 * every, _FEWEST_OF_A_LANGUAGE)
    others = {language: count for language, count in languages.items() if count > fewest and language != main}
    if others:
        said = ", ".join(f"{language} {count / every:.0%}" for language, count in list(others.items())[:5])
        yield Finding(
            level="note", kind="several_languages",
            says=f"Captions are in several languages: {main} {most / every:.0%}, {said}.",
            matters="A model learns to answer in any of them.", remedy="[data.steps.filter] languages keeps some.",
            share=1 - most / every,
        )  # fmt: skip


def _of_splits(captions: CaptionFacts, images: int) -> Iterator[Finding]:
    named = {split for split in captions.images if split}
    for split in ("val", "test"):
        if "train" in named and split not in named:
            yield Finding(
                level="note", kind=f"no_{split}",
                says=f"There is no {split} split.",
                matters="Checkpoints and settings are chosen on val, and test is looked at once; one can’t be both.",
                remedy="Divide train again, or keep in mind which of the two is missing.", share=0.0,
            )  # fmt: skip
    if len(named) > 1 and (without := captions.images.get("", 0)):
        yield Finding(
            level="note", kind="no_split", says=f"{_images(without)} {_has(without)} no split where others have one.",
            matters="They follow their group, or go to train.", remedy="Name their split.", share=without / images,
        )  # fmt: skip


def _count(many: int, one: str) -> str:
    return f"{many:,} {one}" if many == 1 else f"{many:,} {one}s"


def _images(many: int) -> str:
    return _count(many, "image")


def _has(many: int) -> str:
    return "has" if many == 1 else "have"
