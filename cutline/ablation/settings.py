"""The recipe's ``[ablation]`` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cutline.core.config import Section

#: How the context is changed; captions with the context as it is are there already.
Condition = Literal["without", "shuffled", "oracle"]


class AblationSettings(Section):
    conditions: tuple[Condition, ...] = Field(
        default=("without", "shuffled", "oracle"),
        min_length=1,
        description='what the captions are held against: captions "without" context; with the context of another image '
        '("shuffled"); with what the references name ("oracle")',
    )
    names: str = Field(
        default="",
        description="spaCy pipeline that finds names, by its name or its folder; a rule of capitals and numbers where "
        "none is said",
    )
