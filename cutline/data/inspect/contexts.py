"""How much of the captions the context gives away: the leak audit.

Context is meant to help, so it may share names with the caption. It leaks when it was made from the caption: then it
contains the caption itself, or nearly the same names as the caption. Names shared by chance are measured with the
context of another image.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex

from cutline.core.records import Sample
from cutline.core.text import split_words
from cutline.data.context.dates import date_in
from cutline.data.inspect.captions import words_of
from cutline.data.steps.context import ORACLE, SOURCES

#: A field leaks when it contains the caption of a larger share of its images; captions of fewer words don't count.
LEAKING_SHARE, FEWEST_WORDS = 0.01, 3
#: A field also leaks when it contains this share of the captions' names, and they contain this share of its names.
NEARLY_ALL = 0.9
#: A field is related to its images when it gives away this share more than another image's context does.
MORE_THAN_CHANCE = 0.02

#: How a field of the context relates to the captions.
Relation = Literal["leaks", "related", "unrelated"]

#: A text → the names in it.
Names = Callable[[str], Collection[str]]

_CAPITAL = r"\p{Lu}[\w'’-]*"
_CAPITALISED = regex.compile(rf"{_CAPITAL}(?:(?: (?:of|the|de|du|van|von|la|al))* {_CAPITAL})*")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBER = re.compile(r"\b\d[\d.,:]*\d\b")
_ENDS = (".", "!", "?", ":", "“", '"', "[", "|", "=", ";")
#: Words that begin a sentence, but never a name.
_OPENERS = frozenset(
    re.findall(
        r"\w+",
        "a an and as at but by during for from he her his i if in it its my of on one or our she some that the their "
        "there these they this those three to two we what when where while who with you",
    )
)


def names_in(text: str) -> list[str]:
    """Names by a simple rule: runs of capitalised words inside a sentence, and numbers of two digits or more.

    A word that begins a sentence counts only when another capitalised word follows, or when it is capitalised
    elsewhere, too. Languages with other rules for capitals need a recogniser.
    """
    names = []
    inside: set[str] = set()
    opening: list[str] = []
    for match in _CAPITALISED.finditer(text):
        words = match[0].split()
        begins = not text[: match.start()].rstrip() or text[: match.start()].rstrip().endswith(_ENDS)
        while begins and words and words[0].lower() in _OPENERS:
            words.pop(0)
        if begins and len(words) == 1 and len(match[0].split()) == 1:
            opening.append(words[0])
        elif words and words[0].lower() not in _OPENERS:
            names.append(" ".join(words))
            inside.update(words)
    names += [word for word in opening if word in inside]
    return list(dict.fromkeys([*names, *_NUMBER.findall(text)]))


@dataclass(frozen=True, kw_only=True)
class FieldFacts:
    """One field of the context, or all of them together.

    Attributes:
        images: images that have the field.
        sources: where the field comes from → images.
        holds_caption: images whose field contains their caption, word for word.
        examples: ids of some of these images.
        names: names in the captions of these images.
        given, given_by_chance: those of ``names`` that the field contains; that the field of another image contains.
        own_names: names in the field.
        taken: those of ``own_names`` that the captions contain.
        words, words_given, words_given_by_chance: the same for all words of four letters or more.
        own_words, words_taken: as ``own_names`` and ``taken``.
    """

    images: int
    sources: Mapping[str, int]
    holds_caption: int
    examples: tuple[str, ...]
    names: int
    given: int
    given_by_chance: int
    own_names: int
    taken: int
    words: int
    words_given: int
    words_given_by_chance: int
    own_words: int
    words_taken: int

    @property
    def shares(self) -> dict[str, float | None]:
        """Shares, 0–1; None where the total is 0."""

        def share(part: int, total: int) -> float | None:
            return part / total if total else None

        return {
            "names_given_away": share(self.given, self.names),
            "names_given_away_by_chance": share(self.given_by_chance, self.names),
            "own_names_in_captions": share(self.taken, self.own_names),
            "words_given_away": share(self.words_given, self.words),
            "words_given_away_by_chance": share(self.words_given_by_chance, self.words),
            "own_words_in_captions": share(self.words_taken, self.own_words),
        }

    @property
    def is_oracle(self) -> bool:
        """Whether some of the field was made from the caption, as ``oracle = true`` allows."""
        return any(source.startswith(ORACLE) for source in self.sources)

    @property
    def relation(self) -> Relation:
        shares = self.shares
        if self.holds_caption > LEAKING_SHARE * self.images or self.is_oracle:
            return "leaks"
        for kind in ("names", "words"):
            away, own = shares[f"{kind}_given_away"], shares[f"own_{kind}_in_captions"]
            if away is not None and own is not None and min(away, own) >= NEARLY_ALL:
                return "leaks"
        more = [
            (shares[f"{kind}_given_away"] or 0) - (shares[f"{kind}_given_away_by_chance"] or 0)
            for kind in ("names", "words")
        ]
        return "related" if max(more) > MORE_THAN_CHANCE else "unrelated"

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "sources": dict(self.sources),
            "relation": self.relation,
            "images_holding_their_caption": self.holds_caption,
            "names_in_captions": self.names,
            **self.shares,
        }


@dataclass(frozen=True, kw_only=True)
class ContextFacts:
    """The audit of a dataset's context.

    Attributes:
        images: images with any context.
        captioned: images with captions.
        whole: all fields together.
        fields: each field by itself.
        step_sources: the fields that the context step built its line from: field → source → images.
        named_by: what recognised the names, for people.
    """

    images: int
    captioned: int
    whole: FieldFacts
    fields: Mapping[str, FieldFacts]
    step_sources: Mapping[str, Mapping[str, int]]
    named_by: str

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "captioned": self.captioned,
            "names_by": self.named_by,
            "whole": self.whole.to_json(),
            "fields": {name: facts.to_json() for name, facts in self.fields.items()},
            "context_step_sources": {name: dict(sources) for name, sources in self.step_sources.items()},
        }


class Contexts:
    """Audits context sample by sample.

    Args:
        names: recognises the names in a text; a simple rule by default.
        named_by: what it is called, for people.
    """

    def __init__(self, names: Names = names_in, named_by: str = "capitals and numbers"):
        self._names, self._named_by = names, named_by
        self._images = self._captioned = 0
        self._whole = _Field()
        self._fields: dict[str, _Field] = defaultdict(_Field)
        self._step_sources: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, sample: Sample) -> None:
        if not sample.captions:
            return
        self._captioned += 1
        context = {field: text for field, text in sample.context.items() if text.strip()}
        if not context:
            return
        self._images += 1
        sources = sample.extra.get(SOURCES) or {}
        origins = {str(entry.get("source", "")) for entry in sources.values()}
        for field, entry in sources.items():
            self._step_sources[field][str(entry.get("source", ""))] += 1
        target = _Target(sample, _names(self._names, sample.captions))
        for field, text in context.items():
            self._fields[field].add(target, text, self._names, sorted(origins) if field == "context" else [])
        self._whole.add(
            target,
            " ; ".join(context.values()),
            self._names,
            [origin for origin in origins if origin.startswith(ORACLE)],
        )

    def facts(self) -> ContextFacts | None:
        """The audit; None where no image has context."""
        if not self._images:
            return None
        return ContextFacts(
            images=self._images,
            captioned=self._captioned,
            whole=self._whole.facts(),
            fields={name: field.facts() for name, field in self._fields.items()},
            step_sources=self._step_sources,
            named_by=self._named_by,
        )


@dataclass(frozen=True)
class _Target:
    """A sample's captions, in the forms in which the context is searched for them."""

    sample: Sample
    names: frozenset[str]

    @property
    def phrases(self) -> list[str]:
        captions = [words_of(caption) for caption in self.sample.captions]
        return [" ".join(words) for words in captions if len(words) >= FEWEST_WORDS]

    @property
    def plain(self) -> str:
        return _plain(" ; ".join(self.sample.captions))

    @property
    def words(self) -> frozenset[str]:
        return _long_words(" ".join(self.sample.captions))


class _Field:
    """Counts of one field."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._examples: list[str] = []
        self._last: tuple[str, str] | None = None  # group and text of the last image
        self._before: tuple[str, str] | None = None  # of the last one of a group other than that

    def add(self, target: _Target, text: str, names: Names, sources: Sequence[str]) -> None:
        self._counts["images"] += 1
        self._sources.update(sources)
        plain, caption, own = _plain(text), target.plain, _names(names, [text])
        if any(f" {phrase} " in plain for phrase in target.phrases):
            self._counts["holds_caption"] += 1
            if len(self._examples) < 5:
                self._examples.append(target.sample.id)
        words, own_words = target.words, _long_words(text)
        self._counts.update(
            names=len(target.names),
            given=sum(name in plain for name in target.names),
            own_names=len(own),
            taken=sum(name in caption for name in own),
            words=len(words),
            words_given=len(words & own_words),
            own_words=len(own_words),
            words_taken=len(own_words & words),
        )
        other = self._other(target.sample.group or target.sample.id)
        if other is not None:
            other_words = _long_words(other)
            self._counts["given_by_chance"] += sum(name in _plain(other) for name in target.names)
            self._counts["words_given_by_chance"] += len(words & other_words)
        self._remember(target.sample.group or target.sample.id, text)

    def _other(self, group: str) -> str | None:
        """The last text of another group."""
        for earlier in (self._last, self._before):
            if earlier is not None and earlier[0] != group:
                return earlier[1]
        return None

    def _remember(self, group: str, text: str) -> None:
        if self._last is not None and self._last[0] != group:
            self._before = self._last
        self._last = (group, text)

    def facts(self) -> FieldFacts:
        keys = (
            "images",
            "holds_caption",
            "names",
            "given",
            "given_by_chance",
            "own_names",
            "taken",
            "words",
            "words_given",
            "words_given_by_chance",
            "own_words",
            "words_taken",
        )
        counts = {key: self._counts[key] for key in keys}
        return FieldFacts(sources=self._sources, examples=tuple(self._examples), **counts)


def _names(find: Names, texts: Sequence[str]) -> frozenset[str]:
    """Names of several texts in their normal form; a whole date as the context step writes it."""
    names = set()
    for text in texts:
        date = date_in(text)
        for name in find(text):
            plain = _plain(name)
            if plain.strip() and not (date and plain.strip() in _plain(text) and _is_of_date(plain, date)):
                names.add(plain)
        if date:
            names.add(_plain(date))
    return frozenset(names)


def _is_of_date(plain: str, date: str) -> bool:
    """Whether a "name" is part of a date that is counted as a whole."""
    year, month, day = date.split("-")
    pieces = {year, day, day.lstrip("0")}
    return all(word in pieces or word.startswith(_MONTHS[int(month) - 1]) for word in plain.split())


def _plain(text: str) -> str:
    """Words in lower case, with one space around each; a date stands at the end as YYYY MM DD."""
    date = date_in(text)
    words = " ".join(split_words(text))
    return f" {words} {' '.join(date.split('-'))} " if date else f" {words} "


def _long_words(text: str) -> frozenset[str]:
    return frozenset(word for word in words_of(text) if len(word) > 3)
