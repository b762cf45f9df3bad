"""The English (Porter 2) stemmer as METEOR 1.5 has it: the older version, before 2023's changes.

Porter, "The English (Porter2) stemming algorithm", http://snowball.tartarus.org/algorithms/english/stemmer.html.
"""

from __future__ import annotations

import re

_VOWELS = "aeiouy"
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_WHOLE = {
    "skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl",
    "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl", "sky": "sky", "news": "news", "howe": "howe",
    "atlas": "atlas", "cosmos": "cosmos", "bias": "bias", "andes": "andes",
}  # fmt: skip
_AFTER_1A = {"inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"}
_R1 = re.compile(r"(?:gener|commun|arsen)|.*?[aeiouy][^aeiouy]")
_REGION = re.compile(r".*?[aeiouy][^aeiouy]")
_STEP_2 = {
    "tional": "tion", "enci": "ence", "anci": "ance", "abli": "able", "entli": "ent", "izer": "ize", "ization": "ize",
    "ational": "ate", "ation": "ate", "ator": "ate", "alism": "al", "aliti": "al", "alli": "al", "fulness": "ful",
    "ousli": "ous", "ousness": "ous", "iveness": "ive", "iviti": "ive", "biliti": "ble", "bli": "ble", "fulli": "ful",
    "lessli": "less",
}  # fmt: skip
_STEP_3 = {
    "tional": "tion", "ational": "ate", "alize": "al", "icate": "ic", "iciti": "ic", "ical": "ic", "ful": "",
    "ness": "",
}  # fmt: skip
_STEP_4 = ("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ism", "ate", "iti", "ous",
           "ive", "ize")  # fmt: skip
_LONGEST_FIRST_2 = sorted([*_STEP_2, "ogi", "li"], key=len, reverse=True)
_LONGEST_FIRST_3 = sorted([*_STEP_3, "ative"], key=len, reverse=True)
_LONGEST_FIRST_4 = sorted([*_STEP_4, "ion"], key=len, reverse=True)


def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if len(word) <= 2:
        return word
    if word in _WHOLE:
        return _WHOLE[word]
    word = _mark_consonant_y(word.removeprefix("'"))
    first = _R1.match(word)
    r1 = first.end() if first else len(word)
    second = _REGION.match(word[r1:])
    r2 = r1 + second.end() if second else len(word)
    word = _step_1a(_step_0(word))
    if word in _AFTER_1A:
        return word.lower()
    word = _step_1c(_step_1b(word, r1))
    word = _step_3(_step_2(word, r1), r1, r2)
    return _step_5(_step_4(word, r2), r1, r2).lower()


def _mark_consonant_y(word: str) -> str:
    """y at the beginning or after a vowel as Y: a consonant."""
    letters = list(word)
    for position, letter in enumerate(letters):
        if letter == "y" and (position == 0 or letters[position - 1] in _VOWELS):
            letters[position] = "Y"
    return "".join(letters)


def _has_vowel(part: str) -> bool:
    return any(letter in _VOWELS for letter in part)


def _ends_short(word: str) -> bool:
    """Whether a word ends in a short syllable."""
    if len(word) == 2:
        return word[0] in _VOWELS and word[1] not in _VOWELS
    return len(word) > 2 and word[-3] not in _VOWELS and word[-2] in _VOWELS and word[-1] not in _VOWELS + "wxY"


def _step_0(word: str) -> str:
    for ending in ("'s'", "'s", "'"):
        if word.endswith(ending):
            return word[: -len(ending)]
    return word


def _step_1a(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith(("us", "ss")):
        return word
    if word.endswith("s") and _has_vowel(word[:-2]):
        return word[:-1]
    return word


def _step_1b(word: str, r1: int) -> str:
    for ending in ("eedly", "eed"):
        if word.endswith(ending):
            return word[: -len(ending)] + "ee" if len(word) - len(ending) >= r1 else word
    for ending in ("ingly", "edly", "ing", "ed"):
        if word.endswith(ending):
            rest = word[: -len(ending)]
            if not _has_vowel(rest):
                return word
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if rest.endswith(_DOUBLES):
                return rest[:-1]
            return rest + "e" if len(rest) <= r1 and _ends_short(rest) else rest
    return word


def _step_1c(word: str) -> str:
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:
        return word[:-1] + "i"
    return word


def _step_2(word: str, r1: int) -> str:
    ending = next((known for known in _LONGEST_FIRST_2 if word.endswith(known)), None)
    if ending is None or len(word) - len(ending) < r1:
        return word
    rest = word[: -len(ending)]
    if ending == "ogi":
        return word[:-1] if rest.endswith("l") else word
    if ending == "li":
        return rest if rest and rest[-1] in "cdeghkmnrt" else word
    return rest + _STEP_2[ending]


def _step_3(word: str, r1: int, r2: int) -> str:
    ending = next((known for known in _LONGEST_FIRST_3 if word.endswith(known)), None)
    if ending is None or len(word) - len(ending) < r1:
        return word
    rest = word[: -len(ending)]
    if ending == "ative":
        return rest if len(rest) >= r2 else word
    return rest + _STEP_3[ending]


def _step_4(word: str, r2: int) -> str:
    ending = next((known for known in _LONGEST_FIRST_4 if word.endswith(known)), None)
    if ending is None or len(word) - len(ending) < r2:
        return word
    rest = word[: -len(ending)]
    return word if ending == "ion" and not rest.endswith(("s", "t")) else rest


def _step_5(word: str, r1: int, r2: int) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        return rest if len(rest) >= r2 or (len(rest) >= r1 and not _ends_short(rest)) else word
    if word.endswith("ll") and len(word) - 1 >= r2:
        return word[:-1]
    return word
