"""What harms training or inflates a score, as sentences, most serious first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any, Literal

from cutline.data.inspect.captions import CaptionFacts
from cutline.data.inspect.contexts import ContextFacts, FieldFacts
from cutline.data.inspect.pictures import PictureFacts
from cutline.data.problem import LOSSES

#: "leak": scores will be too high. "problem": harms training or scores. "note": worth knowing before training.
Level = Literal["leak", "problem", "note"]
_LEVELS = ("leak", "problem", "note")

#: What one image, and several images, have in common with others.
_SAME = {"exact": ("has the same bytes as", "have the same bytes as"), "near": ("looks like", "look like")}

#: A language of fewer images is not reported: it is as likely to be a wrong guess.
_FEWEST_OF_A_LANGUAGE = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    Attributes:
        kind: the finding's name for programs.
        message: what was found, with numbers.
        consequence: what it does to training or to scores.
        remedy: what to do about it.
        share: share of the images that it concerns, 0–1; findings of one level are sorted by it.
        examples: ids of some of these images.
    """

    level: Level
    kind: str
    message: str
    consequence: str
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
    """All findings, most serious first.

    Args:
        divided: group → images by split, for groups that lie in several splits.
        problems: reason → rows that were lost before any image was opened.
    """
    images = sum(captions.images.values())
    unsorted = [
        *_leaks(pictures, divided, images),
        *_of_context(contexts),
        *_repetition(captions, images),
        *_of_captions(captions, images),
        *_of_pictures(pictures, images),
        *_of_rows(problems, images),
        *_of_languages(languages),
        *_of_splits(captions, images),
    ]
    return tuple(sorted(unsorted, key=lambda finding: (_LEVELS.index(finding.level), -finding.share)))


def _leaks(pictures: PictureFacts, divided: Mapping[str, Mapping[str, int]], images: int) -> Iterator[Finding]:
    for how in _SAME:
        if count := pictures.repeats.get((how, "between"), 0):
            pair = next(pair for pair in pictures.pairs if pair.how == how and pair.leaks)
            yield Finding(
                level="leak",
                kind=f"{how}_picture_in_two_splits",
                message=f"{_images(count)} {_SAME[how][count > 1]} an image in another split, for example "
                f"{pair.second} ({pair.splits[1] or 'none'}) and {pair.first} ({pair.splits[0] or 'none'}).",
                consequence="The model has seen these images in training, so its score does not measure new images.",
                remedy="Let [data] val and test divide the data, with [data.steps.dedup], or remove one of each.",
                share=count / images,
                examples=(pair.first, pair.second),
            )
    if divided:
        group, splits = next(iter(divided.items()))
        count = sum(sum(by_split.values()) for by_split in divided.values())
        yield Finding(
            level="leak",
            kind="group_in_two_splits",
            message=f"{_count(len(divided), 'group')} {'is' if len(divided) == 1 else 'are'} divided between splits, "
            f"for example {group} ({', '.join(f'{number} in {split}' for split, number in splits.items())}).",
            consequence="Images of one article or scene are similar, so scores are too high.",
            remedy="Let [data] val and test divide the data; they keep groups together.",
            share=count / images,
        )


def _of_context(contexts: ContextFacts | None) -> Iterator[Finding]:
    if contexts is None:
        return
    for name, field in contexts.fields.items():
        shares = field.shares
        if field.relation == "leaks":
            yield Finding(
                level="leak",
                kind="context_gives_caption_away",
                message=f"The context’s {name!r} {why_leaks(field)}.",
                consequence="A model with the caption in its prompt learns to copy it, and its score means nothing.",
                remedy="Use context that is known without the caption, or leave it out.",
                share=max(field.holds_caption / field.images, shares["names_given_away"] or 0),
                examples=field.examples,
            )
        elif field.relation == "unrelated":
            given, chance = (shares[f"words_given_away{end}"] or 0 for end in ("", "_by_chance"))
            yield Finding(
                level="note",
                kind="context_unrelated",
                message=f"The context’s {name!r} shares no more words with its own image’s captions ({given:.1%}) than "
                f"the context of another image does ({chance:.1%}).",
                consequence="It costs tokens and teaches nothing, or it belongs to other images.",
                remedy="Check some examples, and leave it out if it is unrelated.",
                share=field.images / max(contexts.captioned, 1),
            )


def why_leaks(field: FieldFacts) -> str:
    """How a field that leaks gives the captions away, as the end of a sentence."""
    if field.holds_caption:
        return (
            f"contains the caption of {field.holds_caption:,} of {_images(field.images)}, word for word "
            f"({', '.join(field.examples[:2])})"
        )
    if field.is_oracle:
        return "was taken from the caption itself (oracle = true)"
    kinds = ("names", "words")
    kind = max(kinds, key=lambda kind: field.shares[f"{kind}_given_away"] or 0)
    away, own = field.shares[f"{kind}_given_away"] or 0, field.shares[f"own_{kind}_in_captions"] or 0
    return (
        f"seems to be made from the captions: it contains {away:.0%} of their {kind}, and they contain {own:.0%} "
        f"of its {kind}"
    )


def _repetition(captions: CaptionFacts, images: int) -> Iterator[Finding]:
    several = captions.several
    if several and captions.some_same > 0.01 * several:
        whole = f"{captions.all_same:,} have a single caption, repeated" if captions.all_same else "none has only one"
        yield Finding(
            level="problem",
            kind="captions_repeated_within_images",
            message=f"{captions.some_same:,} of {several:,} images with several captions repeat at least one; {whole}.",
            consequence="A repeated caption is not another reference: scores and training count it several times.",
            remedy="Count each caption once per image, and don’t compare scores with those on independent captions.",
            share=captions.some_same / images,
        )
    if captions.shared > 0.05 * images:
        top = captions.frequent[0]
        level: Level = "problem" if captions.no_own > 0.1 * images or captions.shared > 0.25 * images else "note"
        yield Finding(
            level=level,
            kind="captions_repeated_between_images",
            message=f"{captions.shared:,} of {images:,} images share a caption with another image"
            + (f", and {captions.no_own:,} have no caption of their own" if captions.no_own else "")
            + f". The most frequent: “{shorten(top.text, 200, placeholder=' …')}” ({top.images:,} images).",
            consequence="A shared caption cannot identify its image, and a model that always predicts it still scores.",
            remedy="In retrieval, accept every image with the caption; compare with the constant-caption baseline.",
            share=captions.shared / images,
        )
    for split, (known, of) in captions.known.items():
        if known > 0.1 * of:
            yield Finding(
                level="problem",
                kind="training_captions_in_other_splits",
                message=f"{known:,} of {of:,} {split or 'other'} images have a caption that also occurs "
                "in train, word for word.",
                consequence="Memorised captions score there, so the score says little about new captions.",
                remedy="Compare with the baselines, and look at the novelty of the predictions.",
                share=known / images,
            )


_FAULTS = {
    "boilerplate": "are credits, file names or calls to click",
    "poor_caption": "repeat one word, are in capitals, or are hardly words",
    "short_caption": "have fewer than three words",
    "long_caption": "have more than 200 words",
}


def _of_captions(captions: CaptionFacts, images: int) -> Iterator[Finding]:
    if without := captions.per_image.get(0, 0):
        yield Finding(
            level="problem" if without < images else "note",
            kind="no_caption",
            message=f"{_images(without)} {_has(without)} no caption.",
            consequence="They cannot be used for training or scoring.",
            remedy="[data] captions_required = true, the default, leaves them out.",
            share=without / images,
        )
    for fault, phrase in _FAULTS.items():
        count = captions.faults.get(fault, 0)
        if count > 0.001 * max(captions.total, 1):
            yield Finding(
                level="problem" if count > 0.02 * captions.total else "note",
                kind=fault,
                message=f"{count:,} of {captions.total:,} captions {phrase}.",
                consequence="A model learns to write such text for any image.",
                remedy="[data.steps.filter] removes them.",
                share=count / captions.total,
            )


def _of_pictures(pictures: PictureFacts, images: int) -> Iterator[Finding]:
    broken = sum(pictures.broken.values())
    if broken:
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in pictures.broken.items())
        first = pictures.broken_listed[0]
        yield Finding(
            level="problem",
            kind="broken_images",
            message=f"{_images(broken)} can’t be opened: {reasons}. Example: {first.id}: {first.detail}.",
            consequence="They cannot be used for training or scoring.",
            remedy="Download them again, or let cutline prepare leave them out.",
            share=broken / images,
            examples=tuple(problem.id for problem in pictures.broken_listed[:5]),
        )
    for how in _SAME:
        if count := pictures.repeats.get((how, "within"), 0):
            pair = next(pair for pair in pictures.pairs if pair.how == how and not pair.leaks)
            yield Finding(
                level="note",
                kind=f"{how}_picture_twice",
                message=f"{_images(count)} {_SAME[how][count > 1]} an earlier image of the same split, for example "
                f"{pair.second} and {pair.first}.",
                consequence="They count twice, in training and in scores.",
                remedy="[data.steps.dedup] removes them, or keeps them in one split.",
                share=count / images,
                examples=(pair.first, pair.second),
            )
    sizes = pictures.quantiles()
    if sizes and sizes["short_side"]["median"] < 200:
        yield Finding(
            level="note",
            kind="small_images",
            message=f"Images are small (median shorter side {sizes['short_side']['median']:.0f} px).",
            consequence="Models expect 224 px or more, so these images are enlarged and have little detail.",
            remedy="Use the original images if you have them.",
            share=1.0 if sizes["short_side"]["max"] < 200 else 0.5,
        )


def _of_rows(problems: Mapping[str, int], images: int) -> Iterator[Finding]:
    lost = {reason: count for reason, count in problems.items() if reason in LOSSES}
    if count := sum(lost.values()):
        reasons = "; ".join(f"{number:,} × {LOSSES[reason]}" for reason, number in lost.items())
        yield Finding(
            level="problem" if count > 0.01 * images else "note",
            kind="lost_rows",
            message=f"{_count(count, 'row')} of the source {'is' if count == 1 else 'are'} lost: {reasons}.",
            consequence="Rows are seldom lost at random, so the rest may be biased.",
            remedy="problems.jsonl in the prepared dataset lists each.",
            share=count / (count + images),
        )


def _of_languages(languages: Mapping[str, int] | None) -> Iterator[Finding]:
    if not languages:
        return
    total, (main, main_count) = sum(languages.values()), next(iter(languages.items()))
    fewest = max(0.01 * total, _FEWEST_OF_A_LANGUAGE)
    others = {language: count for language, count in languages.items() if count > fewest and language != main}
    if others:
        listed = ", ".join(f"{language} {count / total:.0%}" for language, count in list(others.items())[:5])
        yield Finding(
            level="note",
            kind="several_languages",
            message=f"Captions are in several languages: {main} {main_count / total:.0%}, {listed}.",
            consequence="The model will caption in any of them.",
            remedy="Choose some with [data.steps.filter] languages.",
            share=1 - main_count / total,
        )


def _of_splits(captions: CaptionFacts, images: int) -> Iterator[Finding]:
    named = {split for split in captions.images if split}
    for split in ("val", "test"):
        if "train" in named and split not in named:
            yield Finding(
                level="note",
                kind=f"no_{split}",
                message=f"There is no {split} split.",
                consequence="Checkpoints and settings are chosen on val, and measured on test; one can’t do both.",
                remedy="Take the missing split from train, or keep this in mind when you read scores.",
                share=0.0,
            )
    if len(named) > 1 and (without := captions.images.get("", 0)):
        yield Finding(
            level="note",
            kind="no_split",
            message=f"{_images(without)} {_has(without)} no split where others have one.",
            consequence="They get the split of their group, or train.",
            remedy="Name their split in the source.",
            share=without / images,
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _images(number: int) -> str:
    return _count(number, "image")


def _has(number: int) -> str:
    return "has" if number == 1 else "have"
