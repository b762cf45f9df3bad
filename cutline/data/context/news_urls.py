"""What a news site's address says by itself: the date and the section of an article or of its photograph."""

from __future__ import annotations

import datetime
import itertools
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_DATE = re.compile(r"(?:^|/)((?:18|19|20)\d\d)[/-](\d\d?|[a-z]{3})[/-](\d\d?)(?=/|$)", re.IGNORECASE)
_PICTURE = re.compile(r"\.(jpe?g|png|gif|webp)$", re.IGNORECASE)

#: Up to four words: a section. More words, or digits, are an article's own name.
_SECTION = re.compile(r"[a-z]+(?:[-_&][a-z]+){0,3}", re.IGNORECASE)

#: Parts of a path that name a kind of page, an agency or a language, not a section.
_KINDS = {
    "images", "image", "interactive", "news", "story", "article", "articles", "slideshow", "media", "photos", "live",
    "gallery", "picture", "audio", "ng-interactive", "aponline", "reuters", "es", "index.html",
}  # fmt: skip

#: Sections within sections, where an address could also mean a picture's own folder.
_BELOW = {
    "design", "music", "dance", "television", "international", "asia", "europe", "africa", "americas", "middleeast",
    "politics", "canada", "australia", "baseball", "basketball", "football", "hockey", "soccer", "tennis", "golf",
    "media", "economy", "energy-environment", "smallbusiness", "dealbook", "books", "movies", "theater", "weddings",
    "ncaafootball", "ncaabasketball", "autoracing", "cycling", "cricket", "rugby", "skiing", "olympics", "worldcup",
    "review", "reviews", "global", "personaltech", "earth", "space", "policy", "research", "nutrition", "family",
    "edlife", "commercial", "mensstyle", "elections", "artsspecial", "awardsseason", "video-games", "sunday",
}  # fmt: skip

#: Sections that say how a page is made rather than what it is about.
VAGUE = frozenset({"multimedia", "video", "blogs", "insider", "admin", "todayspaper"})


@dataclass(frozen=True, slots=True)
class NewsAddress:
    """
    Attributes:
        section: "world", "arts/international", …; "" when the address doesn't say.
        date: YYYY-MM-DD; "" when it doesn't say.
    """

    section: str = ""
    date: str = ""


def parse(address: str) -> NewsAddress:
    """Reads an article's or an image's address, of the New York Times' layout or of one that is like it.

    …/images/2015/02/19/arts/international/slug/slug-jumbo.jpg → arts/international, 2015-02-19
    …/2021/08/30/world/slug.html                                → world, 2021-08-30
    …/world/2021/aug/30/slug                                    → world, 2021-08-30
    …/2021/08/30/world/slug/index.html                          → world, 2021-08-30
    """
    try:
        path = unquote(urlsplit(address.strip()).path)
    except ValueError:
        return NewsAddress()
    found = _DATE.search(path)
    date = _checked(found) if found else ""
    if not found or not date:
        return NewsAddress()
    before = [part for part in path[: found.start()].split("/") if part and part.lower() not in _KINDS]
    after = [part for part in path[found.end() :].split("/") if part and part.lower() != "index.html"]
    rest, name = after[:-1], "".join(after[-1:])  # name: the slug, or the file
    if "/images/" in path[: found.start() + 1] or _PICTURE.search(path):
        if rest and (_is_its_own(rest[-1], name) or (len(rest) > 1 and rest[-1].lower() not in _BELOW)):
            rest = rest[:-1]
        return NewsAddress("/".join(rest).lower(), date)
    section = itertools.takewhile(_SECTION.fullmatch, before or rest)
    return NewsAddress("/".join(section).lower(), date)


def _is_its_own(folder: str, file: str) -> bool:
    """Whether a folder is the picture's own: …/29afghanistan-dc2/29afghanistan-dc2-jumbo.jpg"""
    return bool(re.search(r"\d", folder)) and file.startswith(folder)


def _checked(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    number = int(month) if month.isdigit() else _MONTHS.get(month.lower(), 0)
    try:
        return datetime.date(int(year), number, int(day)).isoformat()
    except ValueError:
        return ""
