"""Names in a text: people, places, organisations, events; by spaCy's recogniser and a list of events."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cutline.core.errors import CutlineError
from cutline.core.memo import Remembered

#: What is looked for → the recogniser's labels.
KINDS = {"location": ("GPE", "LOC"), "person": ("PERSON", "PER"), "org": ("ORG",), "event": ("EVENT",)}
_KIND = {label: kind for kind, labels in KINDS.items() for label in labels}

#: Words that end the name of a building or a body: whatever a recogniser says, that is nobody's name.
_NO_PERSON = re.compile(
    r"\b(?:Court(?:house)?|Building|Hall|House|Tower|Bridge|Airport|University|College|School|Hospital|Museum|Church|"
    r"Cathedral|Stadium|Arena|Park|Street|Avenue|Square|Center|Centre|Committee|Department|Party|Company|Inc|Corp)\.?$"
)
_TITLES = re.compile(r"^(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sir|Sen|Rep|Gov|Gen|Lt|Col|Capt|Sgt|Rev|Judge|Justice|President)\.? ")


@dataclass(frozen=True, slots=True)
class Named:
    """A name as it stands in a text: its kind (a key of ``KINDS``) and where it begins."""

    text: str
    kind: str
    start: int


@cache
def _events() -> re.Pattern[str]:
    table = tomllib.loads((Path(__file__).parents[1] / "steps/context.toml").read_text(encoding="utf-8"))
    return re.compile("|".join(f"(?:{event})" for event in table["events"]))


def listed_events(text: str) -> list[Named]:
    """Events of the list in ``steps/context.toml``."""
    return [Named(found[0].strip(), "event", found.start()) for found in _events().finditer(text)]


class Recogniser:
    """spaCy's named entities, remembered in a file, since recognising is slow and a killed job must not start over.

    Args:
        model: name of an installed pipeline, or a folder with one; "" recognises nothing but the list's events.
        memory: SQLite file for what was recognised; None remembers nothing.

    Raises:
        CutlineError: spaCy or the model is not installed.
    """

    def __init__(self, model: str, memory: Path | None = None):
        self._nlp = _load(model) if model else None
        self._version = f"{model} {self._nlp.meta.get('version', '')}" if self._nlp else ""
        self._memory = Remembered(memory) if memory is not None and self._nlp else None

    def close(self) -> None:
        if self._memory:
            self._memory.close()

    def names(self, text: str) -> list[Named]:
        """All names in a text, in its order, events of the list included."""
        found = [*self._recognised(text), *listed_events(text)]
        return sorted(found, key=lambda name: name.start)

    def _recognised(self, text: str) -> list[Named]:
        if self._nlp is None or not text.strip():
            return []
        key = f"{self._version}\0{text}"
        known = self._memory.get(key) if self._memory else None
        if known is not None:
            return [Named(*parts) for parts in known]
        names = [
            Named(" ".join(entity.text.split()), _KIND[entity.label_], entity.start_char)
            for entity in self._nlp(text).ents
            if entity.label_ in _KIND
        ]
        if self._memory:
            self._memory.put(key, [[name.text, name.kind, name.start] for name in names])
        return names


def _load(model: str) -> Any:
    try:
        import spacy
    except ImportError as error:
        raise CutlineError(
            "Recognising names needs spaCy, which is not installed.",
            "Install it: pip install 'cutline[news]'; or set model = \"\" in [data.steps.context].",
        ) from error
    try:
        return spacy.load(model, exclude=["parser", "lemmatizer", "attribute_ruler", "tagger"])
    except OSError as error:
        raise CutlineError(
            f"There is no spaCy model {model!r}.",
            f"python -m spacy download {model} fetches it (or name a folder with a pipeline); "
            'model = "" in [data.steps.context] does without.',
        ) from error


def ranked(names: list[Named]) -> dict[str, list[str]]:
    """Names by kind, the most often mentioned first, then the first mentioned.

    A name that a recogniser tags now as a person, now as a place is what it is most often; a short name counts for the
    full one that it ends ("Biden" for "Joe Biden").
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # name → kind → mentions
    first: dict[str, int] = {}
    for name in names:
        text = _TITLES.sub("", name.text.removesuffix("’s").removesuffix("'s")).strip(" .,;:\"'“”")
        kind = "org" if name.kind == "person" and _NO_PERSON.search(text) else name.kind
        if len(text) > 1:
            counts[text][kind] += 1
            first.setdefault(text, name.start)
    for short in [name for name in counts if " " not in name]:
        full = [name for name in counts if name.endswith(f" {short}") and counts[name]["person"]]
        if full and not counts[short]["event"]:
            best = min(full, key=lambda name: first[name])
            counts[best]["person"] += sum(counts.pop(short).values())
    kinds: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for text, found in counts.items():
        kind, _ = min(found.items(), key=lambda item: (-item[1], item[0]))
        kinds[kind].append((-sum(found.values()), first[text], text))
    return {kind: [text for _, _, text in sorted(found)] for kind, found in kinds.items()}
