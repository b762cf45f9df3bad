"""Model families: each file that defines a family is one, and other packages add theirs as entry points.

Listing them imports nothing.
"""

from __future__ import annotations

from cutline.core.errors import CheckpointError
from cutline.core.plugins import Plugins

#: A family's file defines a class whose bases, or whose own name, say Family; ``Family`` itself is in base.py.
PLUGINS = Plugins(
    "families", noun="family", package=__name__, defines=r"^class (?!Family\b).*Family", error=CheckpointError
)


def names() -> list[str]:
    """The names of all families."""
    return list(PLUGINS.names())
