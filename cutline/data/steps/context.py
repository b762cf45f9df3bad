"""What may stand in the prompt beside a photograph: place, date, people, organisations, event, section of the news.

Each field comes from the article, the headline, an address or the photograph's own notes, and says from which. From the
caption, which a model is to write, nothing is taken, unless the recipe says ``oracle = true``; then everything that is
made from it is called an oracle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from cutline.core import hub
from cutline.core.config import Section
from cutline.core.errors import RecipeError
from cutline.core.records import Sample
from cutline.data.addresses import ORIGINAL, is_address
from cutline.data.context.caption_removal import readable, without_captions
from cutline.data.step import Workspace

DESCRIPTION = "article, headline, addresses, EXIF and IPTC → a line of context for the prompt"
PHASE: Literal["checked"] = "checked"
ORDER = 30
#: Without the image only its own notes are missing.
TEXT_ONLY = True
REASONS: dict[str, str] = {}

#: What the template may name.
FIELDS = ("section", "location", "date", "person", "org", "event")

#: Where a sample keeps field → {value, source}, beside the rendered line in its context.
SOURCES = "context_sources"

#: Columns that hold what a model is to write.
_CAPTION = re.compile(r"captions?([ _-]?\d+)?", re.IGNORECASE)

#: What a source that is made from the caption begins with.
ORACLE = "oracle"


class ContextSettings(Section):
    """[data.steps.context]"""

    texts: list[str] = Field(
        default=["headline", "title", "abstract", "lead_paragraph", "article", "article_text", "body"],
        description="columns that are read for names and dates, most important first; missing columns are skipped "
        'over. "caption" is refused without oracle',
    )
    addresses: list[str] = Field(
        default=["article_url", "web_url", "url", "link"],
        description="columns with the article's URL; the image's own URL is read as well",
    )
    dates: list[str] = Field(
        default=["pub_date", "publication_date", "published", "published_at", "date_published", "datetime", "date"],
        description="columns that may hold a date; used if neither a URL nor the photo's metadata has one",
    )
    sections: list[str] = Field(
        default=["section", "section_name", "news_desk"],
        description="columns that may hold the section; used if no URL contains it",
    )
    model: str = Field(
        default="en_core_web_sm",
        description='spaCy pipeline for names, by its name or its folder; "" reads only addresses, notes, dates and '
        "the list of events",
    )
    template: str = Field(
        default="[{section} | {location} | {date} | PERSON={person} | EVENT={event}]",
        description="template of the line; parts between | whose field is missing are left out. Fields: "
        + ", ".join(FIELDS),
    )
    max_tokens: int = Field(
        default=48, ge=1, description="longest line, in tokens of tokenizer, or as estimated; parts go from its end"
    )
    tokenizer: str = Field(
        default="",
        description='folder or hub name of the model whose tokenizer counts; "" estimates: 4 letters a token',
    )
    persons: int = Field(default=2, ge=0, description="largest number of people in the line")
    max_chars: int = Field(default=5000, ge=1, description="longest part of each text that is read, in characters")
    oracle: bool = Field(
        default=False,
        description="allow the caption as a source: an upper bound for what context can do, not a result to compare",
    )

    @model_validator(mode="after")
    def _reads_no_caption(self) -> ContextSettings:
        for key in ("texts", "addresses", "dates", "sections"):
            forbidden = [name for name in getattr(self, key) if _CAPTION.fullmatch(name.strip())]
            if forbidden and not (self.oracle and key == "texts"):
                raise ValueError(
                    f"{key} names {forbidden[0]!r}, the text that a model is to write; only oracle = true allows that"
                    + (", and only in texts" if key != "texts" else "")
                )
        unknown = set(re.findall(r"\{(\w*)\}", self.template)) - set(FIELDS)
        if unknown:
            raise ValueError(f"the template's {{{unknown.pop()}}} is no field; fields: {', '.join(FIELDS)}")
        return self


SETTINGS = ContextSettings


@dataclass(frozen=True, slots=True)
class FieldValues:
    """A field's values and where they come from ("headline", "image address", "IPTC" …)."""

    values: tuple[str, ...]
    source: str


def is_oracle(sample: Sample) -> bool:
    """Whether something in its context was made from its own caption."""
    sources = sample.extra.get(SOURCES) or {}
    return any(str(found.get("source", "")).startswith(ORACLE) for found in sources.values())


def open(settings: ContextSettings, workspace: Workspace | None = None) -> ContextStep:
    from cutline.data.context.named_entities import Recogniser

    memory = workspace.folder / ".work/context.sqlite" if workspace else None
    return ContextStep(settings, Recogniser(settings.model, memory))


class ContextStep:
    """Sample → sample with ``context["context"]``, and the fields with their sources in ``extra``."""

    def __init__(self, settings: ContextSettings, recogniser: Any):
        self.settings = settings
        self.recogniser = recogniser
        self._length = counter(settings.tokenizer) if settings.tokenizer else tokens
        self._counts: dict[str, int] = {}

    def __call__(self, sample: Sample) -> Sample:
        found = self.fields(sample)
        for name in found:
            self._counts[name] = self._counts.get(name, 0) + 1
        values = {name: one.values for name, one in found.items()}
        line = render(self.settings.template, values, self.settings.max_tokens, self._length)
        sources = {name: {"value": "; ".join(one.values), "source": one.source} for name, one in found.items()}
        if not line:
            return sample
        return replace(sample, context={**sample.context, "context": line}, extra={**sample.extra, SOURCES: sources})

    def facts(self) -> dict[str, Any]:
        """For ``dataset.json``: samples by field, and whether this is an oracle."""
        return {"oracle": int(self.settings.oracle), "fields": dict(self._counts)}

    def close(self) -> None:
        self.recogniser.close()

    def fields(self, sample: Sample) -> dict[str, FieldValues]:
        """Field → its values and source; absent fields are left out."""
        from cutline.data.context.dates import date_in, date_of
        from cutline.data.context.named_entities import ranked

        addresses = self._addresses(sample)
        notes: Mapping[str, str] = sample.extra.get("photo_notes") or {}
        texts = self._texts(sample)
        found: dict[str, FieldValues] = {}
        if section := _section(addresses, [(name, _field(sample, name)) for name in self.settings.sections]):
            found["section"] = section
        if date := _date_of(addresses):
            found["date"] = date
        if "date" not in found and notes.get("date"):
            found["date"] = FieldValues((notes["date"],), "photo notes")
        for name in self.settings.dates:
            if "date" not in found and (day := date_of(_field(sample, name))):
                found["date"] = FieldValues((day,), name)
        place = ", ".join(notes[name] for name in ("city", "state", "country") if notes.get(name))
        if place:
            found["location"] = FieldValues((place,), "photo notes")
        for source, text in texts:
            if "date" not in found and (day := date_in(text)):
                found["date"] = FieldValues((day,), source)
            names = ranked(self.recogniser.names(text))
            most = {"location": 1, "org": 1, "event": 1, "person": self.settings.persons}
            for kind, values in names.items():
                if kind not in found and most[kind]:
                    found[kind] = FieldValues(tuple(values[: most[kind]]), source)
        if self.settings.oracle:  # the caption may stand in any text
            return {name: FieldValues(one.values, f"{ORACLE} ({one.source})") for name, one in found.items()}
        return found

    def _addresses(self, sample: Sample) -> list[tuple[str, str]]:
        """(source, address): the image's own first, since its date is the photograph's."""
        own = [str(sample.extra[name]) for name in (ORIGINAL, "source") if sample.extra.get(name)]
        if is_address(sample.image):  # it isn't fetched yet
            own.append(sample.image)
        article = [str(value) for name in self.settings.addresses if (value := _field(sample, name))]
        return [*(("image address", one) for one in own), *(("article address", one) for one in article)]

    def _texts(self, sample: Sample) -> list[tuple[str, str]]:
        texts = []
        for name in self.settings.texts:
            if _CAPTION.fullmatch(name.strip()):
                value: Any = " ".join(sample.captions)
                source = "caption"
            else:
                value, source = _field(sample, name), name
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
            text = readable(text) if self.settings.oracle else without_captions(text, sample.captions)
            if text.strip():
                texts.append((source, text[: self.settings.max_chars]))
        return texts


def _field(sample: Sample, name: str) -> Any:
    return sample.context.get(name) or sample.extra.get(name)


def _date_of(addresses: Sequence[tuple[str, str]]) -> FieldValues | None:
    """The date from the image's address before the article's."""
    from cutline.data.context.news_urls import parse

    return next((FieldValues((date,), source) for source, one in addresses if (date := parse(one).date)), None)


def _section(addresses: Sequence[tuple[str, str]], columns: Sequence[tuple[str, Any]]) -> FieldValues | None:
    """The section from the article's address before the image's, then from columns; one that says little comes last."""
    from cutline.data.context.news_urls import VAGUE, parse

    named = [(source, parse(one).section) for source, one in reversed(addresses)]
    named += [(name, " ".join(value.split())) for name, value in columns if isinstance(value, str)]
    said = [FieldValues((section,), source) for source, section in named if section]
    telling = [one for one in said if one.values[0].lower().partition("/")[0] not in VAGUE]
    return next(iter([*telling, *said]), None)


def render(
    template: str, values: Mapping[str, Sequence[str]], max_tokens: int, length: Callable[[str], int] | None = None
) -> str:
    """The line: a part for each value, absent fields left out, cut at its end to the budget; "" when nothing is known.

    ``length`` counts a text's tokens; estimated where it isn't given.

    "[{section} | PERSON={person}]", {"person": ("Ann", "Bo")} → "[PERSON=Ann | PERSON=Bo]"
    """
    opening = template[: len(template) - len(template.lstrip("[(<"))]
    closing = template[len(template.rstrip("])>")) :]
    parts = []
    for part in template[len(opening) : len(template) - len(closing)].split("|"):
        names = re.findall(r"\{(\w+)\}", part)
        if not all(values.get(name) for name in names):
            continue
        if len(names) == 1:
            parts += [part.strip().replace(f"{{{names[0]}}}", value) for value in values[names[0]]]
        else:
            parts.append(part.strip().format(**{name: ", ".join(values[name]) for name in names}))
    length = length or tokens
    while parts and length(line := f"{opening}{' | '.join(parts)}{closing}") > max_tokens:
        parts.pop()
    return line if parts else ""


def counter(name: str) -> Callable[[str], int]:
    """Counts tokens as a model's own tokenizer does, special ones left out.

    Raises:
        RecipeError: there is no tokenizer of that name.
    """
    from tokenizers import Tokenizer

    try:
        source = Path(hub.resolve(name))
        is_folder = source.is_dir()
        found = Tokenizer.from_file(str(source / "tokenizer.json")) if is_folder else Tokenizer.from_pretrained(name)
    except Exception as error:  # of the hub, of the file, of its JSON: the library raises bare Exceptions
        raise RecipeError(
            f"[data.steps.context] tokenizer = {name!r} can't be opened: {' '.join(str(error).split())[:150]}.",
            "Give a folder with a tokenizer.json, or a model's name on the hub; without the key tokens are estimated.",
        ) from error
    return lambda text: len(found.encode(text, add_special_tokens=False).ids)


def tokens(text: str) -> int:
    """About how many tokens a model needs: one for each four letters of a word, one for each mark."""
    return sum(-(-len(word) // 4) for word in re.findall(r"\w+", text)) + len(re.findall(r"[^\w\s]", text))
