"""The share of captions that contain the context in the prompt, token by token. Left out if no image has a context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, ratio


class PromptEcho(Metric):
    """Statistics an image: whether the caption contains the context, whether there is one."""

    scores = (
        ScoreInfo(
            "prompt_echo",
            "Prompt echo",
            "Share of captions that contain the context given in the prompt.",
            unit="share",
            higher_is_better=False,
        ),
    )
    compares = False
    unknown: ClassVar[Mapping[str, str]] = {"prompt_echo": "no image has a context in its prompt"}

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 2))
        contexts = self.references.context_tokens
        for image, (tokens, context) in enumerate(zip(candidates.tokens, contexts, strict=False)):
            if context:
                rows[image] = f" {context} " in f" {tokens} ", 1
        return rows

    def reduce(self, sums: Floats) -> Floats:
        return ratio(sums[..., :1], sums[..., 1:])
