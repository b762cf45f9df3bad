"""The Penn Treebank tokenizer that COCO's scores stand on, without Java.

Gives the tokens of ``PTBTokenizer -preserveLines -lowerCase`` of Stanford CoreNLP 3.4.1 as pycocoevalcap 1.2 uses it,
punctuation dropped. Captions are one text to it, so the next caption's first word can decide about a last dot ("K." and
"The …"): order matters. Where a caption holds a character that ends a line, the reference shifts all later captions to
wrong images; here it becomes a space.

Nearly all pieces between spaces mean the same wherever they stand; each is looked at once and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cutline.metrics.text.ptb_rules import lex

#: Tokens that pycocoevalcap drops. Its list has brackets as -LRB-, the tokens are -lrb-: they stay.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

#: What ends a line for the reference.
LINE_BREAKS = re.compile("[\n\r\u2028\u2029\u000b\u000c]")

# What can make a piece between spaces mean something else than alone: a tag with spaces in it, "1 1/2", a phone number,
# a single letter or an abbreviation of a number before a dot.
_TOGETHER = re.compile(
    r"<|[\d)][ \u00a0]\d|(?<![A-Za-z])[A-Za-z]\.(?:\s|$)|(?:art|ca|figs?|nos?|op|pp|prop)\.(?:\s|$)", re.IGNORECASE
)
# Pieces that mean the same wherever they stand, before the end of the whole text, too.
_PLAIN = re.compile(r"(?:[A-Za-z]+(?:[-'][A-Za-z]+)*)?[.,!?;:]?")
_NOT_ALONE = re.compile(r"(?<![A-Za-z])[A-Za-z]\.$|(?:art|ca|figs?|nos?|op|pp|prop)\.$", re.IGNORECASE)
_MOST_REMEMBERED = 500_000


class PtbTokenizer:
    """See the module. Instances share what they remember."""

    name = "ptb-coco-1"
    case = "lower"
    _known: dict[str, str] = {}  # noqa: RUF012 - shared on purpose; piece between spaces → its tokens
    _alone: dict[str, str] = {}  # noqa: RUF012 - those of them that mean the same wherever they stand

    def __call__(self, captions: Sequence[str]) -> list[str]:
        lines = [caption if caption.isprintable() else _one_line(caption) for caption in captions]
        alone = self._alone
        found: list[str] = []
        last = len(lines) - 1
        for number, line in enumerate(lines):
            pieces = [alone.get(piece) for piece in line.split(" ")]
            if None not in pieces:
                found.append(" ".join(filter(None, pieces)))
            elif number == last or _TOGETHER.search(line):
                found.append(_join(lex(_with_next(lines, number), len(line))))
            else:
                found.append(" ".join(filter(None, map(self._piece, line.split(" ")))))
        return found

    def _piece(self, piece: str) -> str:
        """The tokens of a piece between spaces."""
        known = self._known.get(piece)
        if known is None:
            known = _join(lex(piece + "\n", len(piece)))
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
                self._alone.clear()
            self._known[piece] = known
            if _PLAIN.fullmatch(piece) and not _NOT_ALONE.search(piece):
                self._alone[piece] = known
        return known


def _join(tokens: list[str]) -> str:
    return " ".join([token for token in tokens if token not in DROPPED])


def _with_next(lines: Sequence[str], number: int) -> str:
    """A line and what the rules may look ahead at: all up to the next line with something in it."""
    end = number + 1
    while end < len(lines) and not lines[end].strip():
        end += 1
    whole = "\n".join(lines[number : end + 1])
    return whole + "\n" if end + 1 < len(lines) else whole


def _one_line(caption: str) -> str:
    return LINE_BREAKS.sub(" ", caption)
