"""Pages from templates: each is one HTML file that needs nothing else, neither beside it nor from the net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cutline.core.files import write_atomically
from cutline.report import words

_FOLDER = Path(__file__).parent

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "duration": words.duration,
    "thousands": lambda value: f"{value:,}",
    "share": lambda value: "–" if value is None else f"{100 * value:.1f} %",
}


def render(template: str, *styles: str, **values: Any) -> str:
    """A page as text. The same values give the same page, to the byte.

    Args:
        template: the file's name in this folder; so are the styles.
        styles: CSS, in this order.
        values: what the template shows; text is escaped.
    """
    css = "".join((_FOLDER / style).read_text(encoding="utf-8") for style in styles)
    return _environment.get_template(template).render(css=Markup(css), **values)


def write(path: str | Path, page: str) -> Path:
    """Writes a page, whole or not at all; returns its path."""
    # text from outside may hold half a surrogate pair, which UTF-8 doesn't have
    write_atomically(Path(path), page.encode("utf-8", "replace"))
    return Path(path)
