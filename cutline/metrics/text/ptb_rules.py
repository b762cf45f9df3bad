"""The rules of the PTB tokenizer: at each position the longest match wins, what a rule looks ahead at counted in; among
equally long ones the first. Written from what the reference answers, see ``docs/metrics.md`` for what still differs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import regex

from cutline.metrics.text import ptb_words as words

Make = Callable[[Any], list[str]]


def _either(known: str) -> str:
    """Words with spaces between them as alternatives of a pattern."""
    return known.replace(" ", "|")


SPACE = r"[ \t\u00a0\u2000-\u200a\u3000]"
_NEAR = r"[ \t\u00a0\u2000-\u200a\u3000\r\n\u2028\u2029\u000b\u000c\u0085]"  # spaces and line ends
_A = r"'\u0092\u2019"
APOSTROPHE = rf"(?:[{_A}]|&apos;)"
_D = r"[\p{Nd}\u07c0-\u07c9]"
_ALNUM = r"[\p{L}\p{Nd}\u07c0-\u07c9]"
_ENTITY = r"&[aeiouAEIOU](?:acute|grave|uml);"
_LET = rf"(?:[\p{{L}}\u00ad{words.MARKS}]|{_ENTITY})"
_LD = rf"(?:[\p{{L}}\p{{Nd}}\u07c0-\u07c9\u00ad{words.MARKS}]|{_ENTITY})"
_NUMBER = rf"(?:{_D}+|{_D}*(?:[.:,\u00ad\u066b\u066c]{_D}+)+)"
_THING = rf"(?:[dDoOlL]{APOSTROPHE}\p{{L}})?{_ALNUM}+(?:[-_](?:[dDoOlL]{APOSTROPHE}\p{{L}})?{_ALNUM}+)*"
_ACRONYM = r"(?:[A-Za-z](?:\.[A-Za-z])+|(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.K|U\.S\.S\.R))"
_HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:[A-Za-z0-9\u00ad]+|{_ACRONYM}\.))+"
_SENTENCE_END = rf"{_NEAR}(?:{_NEAR}|\p{{Lu}}|</?[A-Za-z!?])"
_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_TAG = rf"<(?:[!?][A-Za-z\-][^>\r\n]*|/?{_NAME}(?:[ ]+{_NAME}(?:[ ]*=[ ]*(?:'[^'\r\n]*'|\"[^\"\r\n]*\"))?)*[ ]*/?)>"
_STARTER = rf"(?:(?:{'|'.join(f'{word}|{word.upper()}' for word in words.STARTERS.split())}|Mr\.|{_TAG}){_NEAR})"
_KEEP = rf"(?:(?i:{_either(words.TITLES)})|[Mm][ft]g)"
_END = (
    rf"(?:(?i:{_either(words.ENDINGS)})|[Pp]p?t[ye]s?|[Ee]d\.D|[Pp]h\.D"
    rf"|{'|'.join(f'{word[0].upper()}(?i:{word[1:]})' for word in words.ENDINGS_CAPITAL.split())})"
)
_URL_STOP = r" \t\n\f\r\"<>|"
_URL_END = rf"[^{_URL_STOP}.!?(){{}},\-]"


def _straight(text: str) -> str:
    return str(regex.sub(APOSTROPHE, "'", text))


def _word(match: Any) -> list[str]:
    return [match[1].replace("\u00ad", "")]


def _as_is(match: Any) -> list[str]:
    return [match[1]]


def _apostrophe(match: Any) -> list[str]:
    return [_straight(match[1])]


def _tag(match: Any) -> list[str]:
    return [match[1].replace(" ", "\u00a0")]


def _spaced(match: Any) -> list[str]:
    text = match[1].replace(" ", "\u00a0").replace("\u00ad", "")
    return [text.replace("(", "-lrb-").replace(")", "-rrb-")]


def _brackets(match: Any) -> list[str]:
    return [match[1].translate(_BRACKETS)]


def _round(match: Any) -> list[str]:
    return [match[1].replace("(", "-lrb-").replace(")", "-rrb-")]


_BRACKETS = {ord(k): f"-{v}-" for k, v in zip("()[]{}", ("lrb", "rrb", "lsb", "rsb", "lcb", "rcb"), strict=True)}
_QUOTES = {ord(k): v for many, v in (
    ("\u0091\u2018\u201b\u2039", "`"), ("\u0092\u2019\u203a", "'"),
    ("\u0093\u201c\u00ab", "``"), ("\u0094\u201d\u00bb", "''")) for k in many}  # fmt: skip
_FRACTIONS = dict(zip("¼½¾⅓⅔⅛⅜⅝⅞", ["1/4", "1/2", "3/4", "1/3", "2/3", "1/8", "3/8", "5/8", "7/8"], strict=True))
_CURRENCY = {"\u00a2": "cents", "\u00a3": "#", "\u0080": "$", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$"}


def _to(token: str) -> Make:
    return lambda match: [token]


def _mapped(table: dict[str, str]) -> Make:
    return lambda match: [table.get(match[1], match[1])]


#: pattern (group 1 is the token, what follows is only looked at), what it becomes, whether case matters
_RULES: list[tuple[str, Make, bool]] = [
    # contractions
    ("(can)not", _as_is, False),
    ("(gon|wan)na", _as_is, False),
    ("(got)ta", _as_is, False),
    ("(gim|lem)me", _as_is, False),
    (rf"({APOSTROPHE}t)(?:is|was)", _apostrophe, False),
    (rf"([A-Za-z]*[A-MO-Za-mo-z])[nN]{APOSTROPHE}[tT]", _word, True),
    (rf"(n{APOSTROPHE}t)", _apostrophe, False),
    (rf"([A-HJ-XZn]{APOSTROPHE}\p{{L}}{{2,}})", _as_is, True),
    (r"([\u0092\u2019](?:[msd]|re|ve|ll))", _apostrophe, False),
    (rf"({_LET}{_LD}*(?:[.!?]{_LET}{_LD}*)*){APOSTROPHE}(?:[msd]|re|ve|ll)", _word, False),
    (rf"({APOSTROPHE}(?:[msd]|re|ve|ll))(?:[^A-Za-z]|\Z)", _apostrophe, False),
    # tags
    (r"(@+)", _as_is, True),
    (f"({_TAG})", _tag, True),
    # words and numbers
    (rf"({_LET}{_LD}*(?:[.!?]{_LET}{_LD}*)*)", _word, True),
    (f"({words.APOSTROPHE_WORDS.replace(chr(39), APOSTROPHE)})", _as_is, False),
    (rf"(\p{{L}}+[aeiouyAEIOUY]{APOSTROPHE}[aeiouA-Z]\p{{L}}*)", _as_is, True),
    (rf"(y{APOSTROPHE})[A-Za-z]", _as_is, False),
    (rf"(https?://[^{_URL_STOP}()]+{_URL_END})", _word, False),
    (
        rf"((?:www\.(?:[^{_URL_STOP}.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}"
        rf"|(?:[^{_URL_STOP}`'.!?(){{}},-_$]+\.)+(?:com|net|org|edu))(?:/[^{_URL_STOP}()]+{_URL_END})?)",
        _word,
        True,
    ),
    (
        r"((?:&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|(){}\u00a0]*@(?:[^ \t\n\f\r\"<>|(){}.\u00a0]+\.)*"
        r"[^ \t\n\f\r\"<>|(){}.\u00a0]+(?:&gt;|>)?)",
        _word,
        True,
    ),
    (r"([@\uff20][a-zA-Z_][a-zA-Z_0-9]*)", _as_is, True),
    (rf"([#\uff03]{_LET}+)", _word, True),
    (rf"({_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}})", _word, True),
    (rf"([-+]?{_NUMBER})", _word, True),
    (r"([\u207a\u207b\u208a\u208b]?(?:[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u2080-\u2089]+))", _as_is, True),
    (rf"((?:{_D}{{1,4}}[- \u00a0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}})", _spaced, True),
    (r"([\u00bc\u00bd\u00be\u2153-\u215e])", _mapped(_FRACTIONS), True),
    (r"([A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})", _spaced, True),
    (rf"({_END}\.)[\s\S]{{2}}", _as_is, True),
    (f"({_THING})", _word, True),
    (r"([A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)", lambda match: [match[1].replace("&amp;", "&")], True),
    (rf"({_HYPHENATED})", _word, True),
    (r"([cCfF]#|[cC]\+\+)", _as_is, True),
    (
        rf"((?:\({_D}{{2,3}}\)[ \u00a0]?|(?:\+\+?)?(?:{_D}{{2,4}}[- \u00a0])?{_D}{{2,4}}[- \u00a0])"
        rf"{_D}{{3,4}}[- \u00a0]?{_D}{{3,5}}|(?:(?:\+\+?)?{_D}{{2,4}}\.)?{_D}{{2,4}}\.{_D}{{3,4}}\.{_D}{{3,5}})",
        _spaced,
        True,
    ),
    # abbreviations
    (rf"({_END}\.){_SENTENCE_END}", _as_is, True),
    (rf"({_END}\.)", _as_is, True),
    (rf"((?:{_LET}{_LD}*(?:[.!?]{_LET}{_LD}*)*|{_THING}|{_HYPHENATED}|[A-Z]+(?:[+&][A-Z]+)+)\.)[,;:]", _word, True),
    (rf"({_KEEP}\.)", _as_is, True),
    (rf"((?:{_either(words.BEFORE_DIGIT)})\.){_NEAR}?{_D}", _as_is, False),
    (rf"([A-Za-z])\.{_NEAR}+{_STARTER}", _as_is, True),
    (r"([A-Za-z]\.)", _as_is, True),
    (rf"({_ACRONYM}\.)", _as_is, True),
    (rf"({_LD}+(?:\.{_LD}+)*\.{words.FILE_ENDINGS})(?:{_NEAR}|[.,?!])", _word, False),
    # symbols
    (r"([A-Z]*\$|#+)", _as_is, True),
    (
        r"([\u00a2\u00a3\u00a4\u00a5\u0080\u20a0\u20ac\u060b\u0e3f\u20a4\uffe0\uffe1\uffe5\uffe6])",
        _mapped(_CURRENCY),
        True,
    ),
    (r"(&amp;)", _to("&"), False),
    (r"(&lt;)", _to("<"), False),
    (r"(&gt;)", _to(">"), False),
    (r"(&(?:quot|QUOT);)", _to("''"), True),
    (r"(&(?:MD|mdash|ndash);|[\u0096\u0097\u2013\u2014\u2015])", _to("--"), True),
    (r"(&nbsp;)", lambda match: [], False),
    (r"(&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);)", _as_is, True),
    (r"(-+)", lambda match: ["--" if 2 <= len(match[1]) <= 4 else match[1]], True),
    (r"(\.{3,}|\.(?:[ \u00a0]\.){2,3}|\u2026)", _to("..."), True),
    (r"([?!]+)", _as_is, True),
    (r"([.\u00a1\u00bf\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002])", _as_is, True),
    (r"([,;:\u3001\u00b7\u0387])", _as_is, True),
    (r"([()\[\]{}])", _brackets, True),
    (r"([\-\^x=~<>']_[\-\^x=~<>']|\([\-\^x=~<>'][_.]?[\-\^x=~<>']\))", _round, True),
    (r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _round, True),
    (r"(\"|``|''|[\u0093\u0094\u201c\u201d\u00ab\u00bb])", _to("''"), True),
    (r"(')[A-Za-z][^ \t\n\r\u00a0]", _to("`"), True),
    (rf"({APOSTROPHE}[0-9][0-9]){_NEAR}", _apostrophe, True),
    (rf"([`\u2018\u0091\u201b\u2039\u203a]|{APOSTROPHE})", _to("'"), True),
    (r"([\u0091-\u0094\u00ab\u00bb\u2018-\u201f\u2039\u203a]{2})", lambda match: [match[1].translate(_QUOTES)], True),
    (r"([\u201a\u201e\u201f])", _as_is, True),
    (r"(_+|\*+|<<|>>)", _as_is, True),
    (r"(\\?\*|/)", _as_is, True),
    (rf"([{words.SYMBOLS}])", _as_is, True),
]


@cache
def rules() -> tuple[tuple[Any, Make], ...]:
    """The compiled rules."""
    return tuple(
        (regex.compile(pattern, regex.POSIX | (0 if case else regex.IGNORECASE)), make)
        for pattern, make, case in _RULES
    )


@cache
def _rules_for(first: str) -> tuple[tuple[Any, Make], ...]:
    """The rules that can match where this character stands."""
    return tuple(rule for rule in rules() if rule[0].fullmatch(first, partial=True))


_SPACES = regex.compile(f"{SPACE}+")


def lex(text: str, end: int) -> list[str]:
    """The tokens of a line, lower-case, punctuation among them.

    Args:
        text: the line and what follows it.
        end: the line's length.
    """
    found: list[str] = []
    position = 0
    while position < end:
        space = _SPACES.match(text, position)
        if space:
            position = space.end()
            continue
        longest, best = 0, None
        for pattern, make in _rules_for(text[position]):
            match = pattern.match(text, position)
            if match and match.end() - position > longest:
                longest, best = match.end() - position, (match, make)
        if best is None:
            position += 1
            continue
        match, make = best
        found.extend(make(match))
        position = match.end(match.lastindex)
    return [token.lower() for token in found]
