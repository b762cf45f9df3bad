"""The recipe's ``[ablation]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cutline.core.config import Section

#: How the context is changed; the run itself captions with the unchanged context.
Condition = Literal["without", "shuffled", "oracle"]


class AblationSettings(Section):
    conditions: tuple[Condition, ...] = Field(
        default=("without", "shuffled", "oracle"),
        min_length=1,
        description='conditions to compare with: "without" context, with the context of another image ("shuffled"), '
        'with the names in the references ("oracle")',
    )
    names: str = Field(
        default="",
        description="spaCy pipeline that finds names: its name or folder; if empty, words with capitals or digits "
        "count as names",
    )
