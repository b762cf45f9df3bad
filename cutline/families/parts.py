"""What code below a family asks of it: a model whose parameters belong to parts."""

from __future__ import annotations

from typing import Any, Protocol


class HasParts(Protocol):
    """The side of a ``Family`` that adapters, quantisation and fast matching use."""

    #: The Hugging Face model.
    model: Any
    #: Parameters that no forward pass uses (a regex); they are never trained.
    unused: str
    #: The checkpoint that was opened; None for a new model.
    origin: str | None
    #: "nf4" or "int8" where the text part is quantised, else None.
    quantized: str | None
    #: Names of parameters in ``model`` that differ from the origin's.
    trained: set[str]

    def part_of(self, name: str) -> str | None:
        """The part that a parameter belongs to, by its name in ``model``."""

    @classmethod
    def name(cls) -> str:
        """The family's name."""
