"""How much of the captions the context gives away: the leak audit.

Context is meant to help, so it may share names with the caption. It leaks when it was made from the caption: then it
holds the caption itself, or everything that it names stands in the caption and everything that the caption names stands
in it. What chance gives away is measured with the context of another image.
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

#: A field leaks when it holds the caption of more images than this share; captions of fewer words don't count.
SHARE, FEWEST_WORDS = 0.01, 3
#: … or when this share of what the captions name stands in it, and of what it names in the captions.
NEARLY_ALL = 0.9
#: Context that gives away less than this share more than another image's context does has nothing to do with the image.
MORE_THAN_CHANCE = 0.02

#: What the context is to the captions.
Verdict = Literal["leaks", "related", "unrelated"]

#: A text → the names in it.
Names = Callable[[str], Collection[str]]

_CAPITAL = r"\p{Lu}[\w'’-]*"
_CAPITALISED = regex.compile(rf"{_CAPITAL}(?:(?: (?:of|the|de|du|van|von|la|al))* {_CAPITAL})*")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMBER = re.compile(r"\b\d[\d.,:]*\d\b")
_ENDS = (".", "!", "?", ":", "“", '"', "[", "|", "=", ";")
#: Words that begin a sentence and a name never.
_OPENERS = frozenset(
    re.findall(
        r"\w+",
        "a an and as at but by during for from he her his i if in it its my of on one or our she some that the their "
        "there these they this those three to two we what when where while who with you",
    )
)


def names_in(text: str) -> list[str]:
    """Names by a simple rule: words with a capital inside a sentence, in a row, and numbers of two digits or more.

    A word that begins a sentence counts only when more of its kind follow, or when it has a capital elsewhere, too. For
    languages that write other words with capitals, or none, a recogniser must be asked.
    """
    found = []
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
            found.append(" ".join(words))
            inside.update(words)
    found += [word for word in opening if word in inside]
    return list(dict.fromkeys([*found, *_NUMBER.findall(text)]))


@dataclass(frozen=True, kw_only=True)
class FieldFacts:
    """One field of the context, or all of them together.

    Attributes:
        images: images that have it; ``sources``: where it comes from → images.
        holds_caption: images whose caption stands in it, word for word; ``examples``: ids of some.
        names: names in the captions of these images; ``given``: those that stand in the field; ``given_by_chance``:
            those that stand in the field of another image.
        own_names: names in the field; ``taken``: those that stand in the captions.
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
        """Shares 0–1; None where there is nothing to have a share of."""

        def share(some: int, every: int) -> float | None:
            return some / every if every else None

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
        """Whether some of it was made from the caption, as ``oracle = true`` allows."""
        return any(source.startswith(ORACLE) for source in self.sources)

    @property
    def verdict(self) -> Verdict:
        shares = self.shares
        if self.holds_caption > SHARE * self.images or self.is_oracle:
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
            "images": self.images, "sources": dict(self.sources), "verdict": self.verdict,
            "images_holding_their_caption": self.holds_caption, "names_in_captions": self.names, **self.shares,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ContextFacts:
    """The audit of a dataset's context.

    Attributes:
        images: images with any context, of ``of`` with captions.
        whole: all fields together; ``fields``: each by itself.
        found: the fields that the context step took the line from: field → source → images.
        named_by: what found the names.
    """

    images: int
    of: int
    whole: FieldFacts
    fields: Mapping[str, FieldFacts]
    found: Mapping[str, Mapping[str, int]]
    named_by: str

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images, "of": self.of, "names_by": self.named_by, "whole": self.whole.to_json(),
            "fields": {name: facts.to_json() for name, facts in self.fields.items()},
            "found_by_the_context_step": {name: dict(sources) for name, sources in self.found.items()},
        }  # fmt: skip


class Contexts:
    """Audits context sample by sample.

    Args:
        names: finds the names in a text; a simple rule by default.
        named_by: what that is called.
    """

    def __init__(self, names: Names = names_in, named_by: str = "capitals and numbers"):
        self._names, self._named_by = names, named_by
        self._images = self._of = 0
        self._whole = _Field()
        self._fields: dict[str, _Field] = defaultdict(_Field)
        self._found: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, sample: Sample) -> None:
        if not sample.captions:
            return
        self._of += 1
        context = {field: text for field, text in sample.context.items() if text.strip()}
        if not context:
            return
        self._images += 1
        sources = sample.extra.get(SOURCES) or {}
        origins = {str(found.get("source", "")) for found in sources.values()}
        for field, found in sources.items():
            self._found[field][str(found.get("source", ""))] += 1
        target = _Target(sample, _names(self._names, sample.captions))
        for field, text in context.items():
            self._fields[field].add(target, text, self._names, sorted(origins) if field == "context" else [])
        self._whole.add(
            target, " ; ".join(context.values()), self._names, [one for one in origins if one.startswith(ORACLE)]
        )

    def facts(self) -> ContextFacts | None:
        """None where no image has context."""
        if not self._images:
            return None
        return ContextFacts(
            images=self._images, of=self._of, whole=self._whole.facts(),
            fields={name: field.facts() for name, field in self._fields.items()}, found=self._found,
            named_by=self._named_by,
        )  # fmt: skip


@dataclass(frozen=True)
class _Target:
    """A sample's captions, made ready to be looked for."""

    sample: Sample
    names: frozenset[str]

    @property
    def phrases(self) -> list[str]:
        found = [words_of(caption) for caption in self.sample.captions]
        return [" ".join(words) for words in found if len(words) >= FEWEST_WORDS]

    @property
    def plain(self) -> str:
        return _plain(" ; ".join(self.sample.captions))

    @property
    def words(self) -> frozenset[str]:
        return _telling(" ".join(self.sample.captions))


class _Field:
    """Counts of one field."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._examples: list[str] = []
        self._before: tuple[str, str] | None = None  # another group and its text
        self._last: tuple[str, str] | None = None

    def add(self, target: _Target, text: str, names: Names, sources: Sequence[str]) -> None:
        self._counts["images"] += 1
        self._sources.update(sources)
        plain, caption, own = _plain(text), target.plain, _names(names, [text])
        if any(f" {phrase} " in plain for phrase in target.phrases):
            self._counts["holds_caption"] += 1
            if len(self._examples) < 5:
                self._examples.append(target.sample.id)
        words, own_words = target.words, _telling(text)
        self._counts.update(
            names=len(target.names), given=sum(name in plain for name in target.names), own_names=len(own),
            taken=sum(name in caption for name in own), words=len(words), words_given=len(words & own_words),
            own_words=len(own_words), words_taken=len(own_words & words),
        )  # fmt: skip
        other = self._other(target.sample.group or target.sample.id)
        if other is not None:
            telling = _telling(other)
            self._counts["given_by_chance"] += sum(name in _plain(other) for name in target.names)
            self._counts["words_given_by_chance"] += len(words & telling)
        self._remember(target.sample.group or target.sample.id, text)

    def _other(self, group: str) -> str | None:
        """The text of another group: the last one before this one's."""
        for one in (self._last, self._before):
            if one is not None and one[0] != group:
                return one[1]
        return None

    def _remember(self, group: str, text: str) -> None:
        if self._last is not None and self._last[0] != group:
            self._before = self._last
        self._last = (group, text)

    def facts(self) -> FieldFacts:
        keys = (
            "images", "holds_caption", "names", "given", "given_by_chance", "own_names", "taken", "words",
            "words_given", "words_given_by_chance", "own_words", "words_taken",
        )  # fmt: skip
        counts = {key: self._counts[key] for key in keys}
        return FieldFacts(sources=self._sources, examples=tuple(self._examples), **counts)


def _names(find: Names, texts: Sequence[str]) -> frozenset[str]:
    """Names of several texts in the form in which they are looked for; a whole date as the context step writes it."""
    found = set()
    for text in texts:
        date = date_in(text)
        for name in find(text):
            plain = _plain(name)
            if plain.strip() and not (date and plain.strip() in _plain(text) and _is_of_date(plain, date)):
                found.add(plain)
        if date:
            found.add(_plain(date))
    return frozenset(found)


def _is_of_date(plain: str, date: str) -> bool:
    """Whether a "name" is a piece of a date that is counted as a whole."""
    year, month, day = date.split("-")
    pieces = {year, day, day.lstrip("0")}
    return all(word in pieces or word.startswith(_MONTHS[int(month) - 1]) for word in plain.split())


def _plain(text: str) -> str:
    """Words in lower case with one space between them and around them all; dates as YYYY-MM-DD stay findable."""
    date = date_in(text)
    words = " ".join(split_words(text))
    return f" {words} {' '.join(date.split('-'))} " if date else f" {words} "


def _telling(text: str) -> frozenset[str]:
    return frozenset(word for word in words_of(text) if len(word) > 3)
