"""How well captions fit their image, as a checkpoint sees it: what ``[data.steps.filter] model`` asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from cutline.families.settings import ModelSettings
from cutline.images.open import open_image

if TYPE_CHECKING:
    from cutline.families.common.retrieval import RetrievalFamily


def scorer(checkpoint: str) -> Callable[[str, Sequence[str]], list[float]]:
    """Image's path and its captions → a score for each.

    A model that was trained to match (BLIP, BLIP-2) gives the probability 0–1 that the caption belongs to the image, by
    which CapFilt filters (Li et al. 2022, arXiv:2201.12086); a two-tower model (CLIP, SigLIP) the cosine of their
    vectors, −1–1, by which LAION-400M was filtered (Schuhmann et al. 2021, arXiv:2111.02114).

    Raises:
        CheckpointError: it can't be opened, or can do neither.
    """
    import torch  # only now: preparing without a model needs none

    from cutline.families.open import open_family

    family = cast("RetrievalFamily", open_family(ModelSettings(checkpoint=checkpoint), task="embed"))
    family.eval()
    matches = "match" in family.tasks and "match" not in family.untrained_tasks

    @torch.inference_mode()
    def score(path: str, captions: Sequence[str]) -> list[float]:
        seen = family.encode_images(family.pixels([open_image(path)]))
        if matches:
            found = family.matching(captions).log_odds(seen, torch.arange(len(captions))).sigmoid()
        else:
            texts = family.embed_texts(family.encode_texts(captions))
            found = family.similarity(family.embed_images(seen), texts)[0]
        return [float(value) for value in found.float().cpu()]

    return score
