"""Whole dates, as texts and metadata write them, in one form: YYYY-MM-DD."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

_NAMES = (
    "Jan(?:uary)?", "Feb(?:ruary)?", "Mar(?:ch)?", "Apr(?:il)?", "May", "June?", "July?", "Aug(?:ust)?",
    "Sept?(?:ember)?", "Oct(?:ober)?", "Nov(?:ember)?", "Dec(?:ember)?",
)  # fmt: skip
_SHORT = {name[:3].lower(): number for number, name in enumerate(_NAMES, 1)}
_MONTH = rf"(?P<month>{'|'.join(_NAMES)})\b\.?"
_YEAR = r"(?P<year>(?:18|19|20)\d\d)(?!\d)"
_DAY = r"(?<!\d)(?P<day>\d{1,2})(?:st|nd|rd|th|d)?"

#: Aug. 29, 2021 | 29th of August, 2021 | 2021-08-29 and 2021/8/29 | 29.08.2021 and 8/29/2021
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        rf"\b{_MONTH}\s*{_DAY}\s*,?\s*{_YEAR}",
        rf"{_DAY}\.?[\s-]+(?:of\s+)?{_MONTH},?[\s-]*{_YEAR}",
        r"(?<![\d.])(?P<year>(?:18|19|20)\d\d)(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})(?!\d)",
        rf"(?<![\d./-])(?P<first>\d{{1,2}})(?P<mark>[./-])(?P<second>\d{{1,2}})(?P=mark){_YEAR}",
    )
)
_COMPACT = re.compile(r"((?:18|19|20)\d\d)(\d\d)(\d\d)(?:T?\d{4,6}.*)?", re.ASCII)


def date_in(text: str) -> str:
    """The first whole date in a text that the calendar knows, as YYYY-MM-DD; "" for none.

    8/9/2021 is skipped: it means one day here and another there. 8/29/2021 and 29/8/2021 leave no doubt.
    """
    best: tuple[int, str] | None = None
    for form in _FORMS:
        for found in form.finditer(text):
            if date := _valid(found.groupdict()):
                best = min(best or (found.start(), date), (found.start(), date))
                break
    return best[1] if best else ""


def date_of(value: Any) -> str:
    """The date in metadata: a text, a date, seconds or milliseconds since 1970, {"$date": …}; "" for none."""
    if isinstance(value, Mapping):
        return date_of(value.get("$date", value.get("$numberLong")))
    if isinstance(value, datetime.date):  # datetime, too
        return value.isoformat()[:10]
    if isinstance(value, bool) or value is None:
        return ""
    text = str(value).strip()
    if compact := _COMPACT.fullmatch(text):
        year, month, day = compact.groups()
        if date := _checked(int(year), int(month), int(day)):
            return date
    if re.fullmatch(r"-?\d{9,13}(?:\.\d*)?", text):
        seconds = float(text) / (1000 if len(text.partition(".")[0]) > 11 else 1)
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
        return moment.date().isoformat()
    return date_in(text)


def _valid(parts: Mapping[str, str | None]) -> str:
    year = int(parts["year"] or 0)
    if "first" in parts:
        first, second = int(parts["first"] or 0), int(parts["second"] or 0)
        if parts["mark"] == "." or first > 12:  # with points the day comes first everywhere
            return _checked(year, second, first)
        return _checked(year, first, second) if second > 12 or first == second else ""
    month = str(parts["month"])
    return _checked(year, int(month) if month.isdigit() else _SHORT[month[:3].lower()], int(parts["day"] or 0))


def _checked(year: int, month: int, day: int) -> str:
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return ""
