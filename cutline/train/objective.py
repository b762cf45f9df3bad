"""What an objective is: one loss, with the keys, the batches and the bookkeeping that belong to it.

An objective is one file in ``cutline/train/objectives``, or an entry point ``cutline.objectives`` of another package;
either has one subclass of ``CaptionObjective`` or of ``RetrievalObjective``. Its name is that of the file or of the
entry point. Recipes are read with these files, so importing one must be quick: it imports torch inside its methods.

How a step goes (``trainer.py``): the learner cuts the batch into chunks; each chunk's forward pass adds up the losses
of its objectives; its backward pass follows at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cutline.core.config import Section
from cutline.core.records import Sample

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cutline.families.base import Batch, Family
    from cutline.families.common.feature_cache import FeatureCache
    from cutline.train.embedding_space import Chunk, EmbeddingSpace, Scale, Vectors


@dataclass(frozen=True)
class Context:
    """What an objective may build on.

    Attributes:
        family: in training; its parts are open.
        samples: the training samples, with all their captions.
        cache: features of the images, where the vision part is frozen.
        max_new_tokens: length limit of captions that are generated while training.
        steps_per_epoch: optimizer steps.
        precision: opens the autocast of the training.
    """

    family: Family
    samples: Sequence[Sample]
    cache: FeatureCache | None = None
    max_new_tokens: int = 40
    steps_per_epoch: int = 1
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Step:
    """The optimizer step that a batch belongs to.

    Attributes:
        number: steps done before it.
        epoch: epochs done before it, with a fraction.
        batches: batches of this process that make the step together.
        tokens: label tokens of all of them over all processes; None where a batch has no labels.
        scale: what a sum over ``tokens`` is multiplied by, because DDP averages over processes.
    """

    number: int = 0
    epoch: float = 0.0
    batches: int = 1
    tokens: Tensor | int | None = None
    scale: int = 1

    def risen(self, epochs: float) -> float:
        """A factor that rises evenly from 0 to 1 in so many epochs."""
        return min(1.0, self.epoch / epochs) if epochs else 1.0


class Objective(ABC):
    """One loss.

    Args:
        settings: an instance of ``Settings``.
        context: the family in training, and its samples.

    Raises:
        TrainingError: the family can't learn it.
    """

    #: The file's or the entry point's name; set when it is found.
    name: ClassVar[str]
    #: Its keys. Every key needs a default, unless the section is the objective's own.
    Settings: ClassVar[type[Section]] = Section
    #: Where its keys are: None: in a section of its own, [train.<name>]; "": in [train]; "retrieval": in
    #: [train.retrieval], with those of the other objectives there.
    section: ClassVar[str | None] = None
    #: What the section is for, in a few words; of sections of their own.
    description: ClassVar[str] = ""
    #: Tasks of the model that it needs and teaches: "caption", "embed", "match".
    tasks: ClassVar[frozenset[str]] = frozenset()
    #: First step in which it is active.
    start: int = 0
    #: Learning rate from ``start`` on, falling linearly to 0 at the end; None: that of [train].
    lr: float | None = None

    def __init__(self, settings: Any, context: Context):
        self.settings, self.context = settings, context
        self.weight = self.weight_of(settings, context.family.tasks)

    @classmethod
    def weight_of(cls, settings: Any, tasks: frozenset[str]) -> float:
        """Factor of the loss for a model that can do these tasks; 0: the recipe doesn't ask for this objective."""
        return 1.0

    @classmethod
    def rehearsed(cls, settings: Any) -> dict[str, Any]:
        """Keys that a rehearsal (``--tiny``) changes, and their values."""
        return {}

    @property
    def module(self) -> nn.Module | None:
        """Parameters of its own that are trained; None: it has none."""
        return None

    def least_loss(self, vocabulary: int) -> float:
        """The smallest loss that is possible: a smaller one is a mistake. In nats a token."""
        return 0.0

    def callbacks(self) -> Sequence[Any]:
        """More callbacks for the Trainer."""
        return ()

    def without_trace(self) -> AbstractContextManager[None]:
        """While this lasts, a batch leaves nothing behind that later ones depend on: it is only a trial."""
        return nullcontext()

    def validated_weights(self) -> AbstractContextManager[None]:
        """While this lasts, the family has the weights that are validated, where they aren't those being trained."""
        return nullcontext()

    def finish(self) -> None:  # noqa: B027
        """Gives the family the weights that are validated, for good."""

    def save(self, checkpoint: Path) -> None:  # noqa: B027
        """Writes what the objective needs to resume exactly; only one process calls it."""

    def load(self, checkpoint: Path) -> None:  # noqa: B027
        """Reads what ``save`` wrote."""


class CaptionObjective(Objective):
    """A loss of captions: batches are images with captions as targets (``Collator``)."""

    tasks = frozenset({"caption"})
    #: Whether no other objective is active from ``start`` on.
    alone: ClassVar[bool] = False

    def batch(self, batch: Batch, samples: Callable[[], Sequence[Sample]]) -> Batch:
        """The batch of a step, on the CPU or on the model's device; here the collator's.

        Args:
            batch: the collator's, on the model's device.
            samples: gives its images, each once, with all its captions; mirrored and without context as in the batch.
        """
        return batch

    @abstractmethod
    def loss(self, family: Family, batch: Batch, step: Step) -> Tensor:
        """This batch's share of the step's loss (scalar): the shares of all batches of a process add up, and DDP
        averages over processes. Called in forward, so it may call the family's ``forward``."""


class RetrievalObjective(Objective):
    """A loss of image and text vectors: batches are images with all their captions (``RetrievalBatch``).

    A batch is whole or cut into chunks (gradient caching, ``retriever.py``). Either way the hooks are called in this
    order: ``begin`` once; ``of_vectors`` and ``plan`` once, with the vectors of the whole batch; ``of_chunk`` for each.
    """

    section = "retrieval"

    @staticmethod
    def collate(family: Any, samples: Sequence[Sample], visual: Batch, chunks: Sequence[range]) -> Any:
        """What it needs of a batch besides ``RetrievalBatch``'s own; kept in ``batch.extra``. Runs in the loader."""
        return None

    def begin(self, space: EmbeddingSpace, chunks: Sequence[Chunk], step: Step) -> None:
        """Before the images and texts are embedded. ``chunk.plans[name]`` keeps what it wants to know later."""

    def of_vectors(self, space: EmbeddingSpace, vectors: Vectors, scale: Scale, chunk: Chunk) -> Tensor | None:
        """The loss of all vectors of this process's batch, contrasted with those of all processes; None: it has no
        such loss. Differentiable by the vectors and by the scale. ``chunk`` is the first one."""
        return None

    def plan(self, space: EmbeddingSpace, vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        """What follows from the vectors of the whole batch, such as pairs to match, for each of the chunks."""

    def of_chunk(self, space: EmbeddingSpace, chunk: Chunk, features: Batch) -> Tensor | None:
        """A chunk's share of the loss, from its image features; None: it has no such loss."""
        return None
