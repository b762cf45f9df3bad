"""Scores how well captions fit their image, with the model of ``[data.steps.filter]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cutline.families.settings import ModelSettings
from cutline.images.open import open_image

if TYPE_CHECKING:
    pass


def scorer(checkpoint: str) -> Callable[[str, Sequence[str]], list[float]]:
    """Opens a model that scores captions: takes an image's path and its captions, returns a score for each caption.

    A model that was trained to match (BLIP, BLIP-2) gives the probability 0–1 that the caption belongs to the image, by
    which CapFilt filters (Li et al. 2022, arXiv:2201.12086); a two-tower model (CLIP, SigLIP) the cosine of their
    vectors, −1–1, by which LAION-400M was filtered (Schuhmann et al. 2021, arXiv:2111.02114).

    Raises:
        CheckpointError: the checkpoint can't be opened, or can neither match nor embed.
    """
    import torch  # imported here: preparing without a model needs no torch

    from cutline.families.common.retrieval import as_embedder
    from cutline.families.open import open_family

    family = as_embedder(open_family(ModelSettings(checkpoint=checkpoint), task="embed"))
    family.eval()
    matches = "match" in family.tasks and "match" not in family.untrained_tasks

    @torch.inference_mode()
    def score(path: str, captions: Sequence[str]) -> list[float]:
        features = family.encode_images(family.pixels([open_image(path)]))
        if matches:
            scores = family.matching(captions).log_odds(features, torch.arange(len(captions))).sigmoid()
        else:
            texts = family.embed_texts(family.encode_texts(captions))
            scores = family.similarity(family.embed_images(features), texts)[0]
        return [float(value) for value in scores.float().cpu()]

    return score
