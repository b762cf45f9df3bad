"""Takes a sample's own captions out of the texts beside it, so that nothing can be learnt from them there."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

#: A caption of fewer words may stand in a text by chance; it is the text only where there is nothing else.
_FEWEST_INSIDE = 3
#: A text of so many words that stands in a caption word for word is a piece of it, not a headline.
_FEWEST_PIECE = 5


def readable(text: str) -> str:
    """Text of a web page without tags and entities: <b>AT&amp;amp;T</b> → AT&T."""
    return unicodedata.normalize("NFKC", html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", " ", text)))


def without_captions(text: str, captions: Sequence[str]) -> str:
    """A text with the captions cut out, whatever their case, spacing, punctuation, tags or entities there.

    "Caption: ANN LEE in Lake&nbsp;Orion", ["Ann Lee in Lake Orion."] → "Caption:  "
    A text that is nothing but a caption, or a piece of one, becomes "".
    """
    text = readable(text)
    for caption in sorted(captions, key=len, reverse=True):
        words, inside = _words(readable(caption)), _words(text)
        if not words or not inside:
            continue
        if inside == words or (len(inside) >= _FEWEST_PIECE and _holds(words, inside)):
            return ""
        if len(words) >= _FEWEST_INSIDE and _holds(inside, words):
            phrase = r"[\W_]+".join(re.escape(word) for word in words)
            text = re.sub(rf"(?<!\w){phrase}(?!\w)", " ", text, flags=re.IGNORECASE)
    return text


def _words(text: str) -> list[str]:
    # parts of hyphenated words are words of their own here, since a context may write "a well-known man" differently
    return re.findall(r"[^\W_]+", text.lower())


def _holds(words: Sequence[str], phrase: Sequence[str]) -> bool:
    return f" {' '.join(phrase)} " in f" {' '.join(words)} "
