"""Validation while training: what scores a family and so chooses the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from cutline.caption.caption import caption, caption_cached
from cutline.core import ranks
from cutline.core.errors import TrainingError
from cutline.core.records import Prediction, Sample
from cutline.families.base import Batch, Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.settings import GenerateSettings
from cutline.images.open import open_sample
from cutline.metrics.base import References
from cutline.metrics.find import higher_is_better
from cutline.metrics.scorer import Scorer
from cutline.retrieve.gallery import gather
from cutline.retrieve.recall import recalls
from cutline.retrieve.rerank import rerank
from cutline.retrieve.stages import first_stage
from cutline.train import distributed

Precision = Callable[[], AbstractContextManager[Any]]


class Evaluator(Protocol):
    """Scores a family in training. Give your own to ``train(evaluator=…)``: an object, or just a function.

    It may have two attributes:

    - ``primary_metric``: the name of the score that chooses the checkpoint; by default ``[train] metric``
    - ``greater_is_better``: whether a higher score is better; by default True

    Every process of a distributed training calls it with the same weights, and each must return the same scores.
    """

    def __call__(self, family: Family, step: int) -> Mapping[str, float]:
        """
        Args:
            family: in evaluation mode, with the weights that would be saved.
            step: optimizer steps done.

        Returns:
            Scores by name, which go to ``log.jsonl`` as ``val_<name>``.
        """
        ...


class CaptionEvaluator:
    """Captions a fixed set of validation images, each process its share, and scores the captions.

    Args:
        samples: validation images with captions.
        settings: how captions are generated.
        metric: the score that chooses the checkpoint.
        cache: features of the images, when the vision part is frozen.
        precision: opens the autocast of the training.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        settings: GenerateSettings,
        metric: str,
        cache: FeatureCache | None,
        precision: Precision = nullcontext,
    ):
        self.samples = samples
        self.settings = settings
        self.cache = cache
        self.precision = precision
        self.primary_metric = metric
        self.greater_is_better = higher_is_better(metric)
        references = References(
            {sample.id: list(sample.captions) for sample in samples},
            images={sample.id: sample.image for sample in samples},
        )
        self.scorer = Scorer(references, list(dict.fromkeys(["cider", "bleu4", metric])), resamples=0)

    def __call__(self, family: Family, step: int) -> dict[str, float]:
        """Scores by name.

        Raises:
            TrainingError: no image could be captioned.
        """
        own = self.samples[ranks.rank() :: ranks.count()]
        with self.precision():
            batches = (
                caption_cached(family, own, self.cache, self.settings)
                if self.cache
                else caption(family, own, self.settings)
            )
            captioned = [prediction for batch in batches for prediction in batch]
        predictions: dict[str, Prediction] = {
            prediction.id: prediction for share in distributed.all_gather_object(captioned) for prediction in share
        }
        failed = [prediction for prediction in predictions.values() if prediction.status == "failed"]
        if len(failed) == len(predictions):
            raise TrainingError(
                f"No validation image could be captioned: {failed[0].error}", "Fix the cause; nothing was lost."
            )
        return self.scorer.values(predictions)


class RecallEvaluator:
    """Recall on a fixed set of validation images and all their captions, in both directions.

    Args:
        samples: validation images with captions.
        metric: the recall that chooses the checkpoint.
        rerank: candidates of each query that are re-ranked by matching; 0: none.
        cache: features of the images, when the vision part is frozen.
        batch_size: images, or captions, at a time.
        precision: opens the autocast of the training.
    """

    greater_is_better = True

    def __init__(
        self,
        samples: Sequence[Sample],
        metric: str,
        rerank: int,
        cache: FeatureCache | None,
        batch_size: int,
        precision: Precision = nullcontext,
    ):
        self.primary_metric, self.rerank, self.cache, self.batch_size = metric, rerank, cache, batch_size
        self.precision = precision
        self.gallery = gather(samples, list)

    @torch.no_grad()
    def __call__(self, family: Family, step: int) -> dict[str, float]:
        """Recall in both directions and its mean, as defined in ``cutline.retrieve.recall``."""
        assert isinstance(family, RetrievalFamily)
        with self.precision():
            pictures, captions = self.gallery.pictures, self.gallery.texts
            images = self._shared(len(pictures), lambda indices: family.embed_images(self._features(family, indices)))
            texts = self._shared(
                len(captions),
                lambda indices: family.embed_texts(family.encode_texts([captions[index] for index in indices])),
            )
            scores = self._ranked(family, images, texts) if ranks.is_main_process() else None
        return cast(dict[str, float], distributed.all_gather_object(scores)[0])

    def _ranked(self, family: RetrievalFamily, images: Tensor, texts: Tensor) -> dict[str, float]:
        k = self.rerank
        stages = first_stage(self.gallery, images, texts, family.similarity, k or len(self.gallery.text_of))
        if k:
            matching = family.matching(self.gallery.texts)
            of_images, of_texts = stages.texts_of_images, stages.images_of_texts
            for _ in rerank(matching, lambda image: self._features(family, [image]), of_images, of_texts):
                pass
        return recalls(*(direction.ranks(matched=bool(k))[0] for direction in stages.directions))

    def _features(self, family: RetrievalFamily, indices: Sequence[int]) -> Batch:
        samples = [self.gallery.pictures[index] for index in indices]
        if self.cache is not None:
            features = family.join_features(self.cache.get(samples))["features"]
            return {"features": features.to(family.device)}
        return {
            "features": family.encode_images(family.pixels([open_sample(sample) for sample in samples]))["features"]
        }

    def _shared(self, count: int, embed: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """The vectors of ``count`` things, each process embedding its share; on the CPU, in order."""
        own = list(range(count))[ranks.rank() :: ranks.count()]
        embedded = [embed(own[at : at + self.batch_size]).cpu() for at in range(0, len(own), self.batch_size)]
        shares = distributed.all_gather_object(torch.cat(embedded) if embedded else None)
        whole: Tensor = next(share for share in shares if share is not None)
        vectors = whole.new_empty(count, *whole.shape[1:])
        for rank, share in enumerate(shares):
            if share is not None:
                vectors[rank :: ranks.count()] = share
        return vectors
