"""What the Trainer trains: a family together with the losses of its objectives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from cutline.core.errors import TrainingError
from cutline.families.base import Family
from cutline.train import objectives
from cutline.train.objective import Context, Objective, Step
from cutline.train.settings import TrainSettings

AnyObjective = TypeVar("AnyObjective", bound=Objective)

_TASKS = {"caption": "write captions", "embed": "embed images and texts", "match": "match pairs"}


class Output(NamedTuple):
    """What a chunk's forward pass gives; all scalars.

    Attributes:
        loss: to be differentiated: the chunk's share of the step's loss, or with cached gradients a stand-in for it.
        value: the chunk's share of the step's loss, to log.
        terms: what each objective came to, unweighted.
    """

    loss: Tensor
    value: Tensor
    terms: dict[str, Tensor]


class Learner(nn.Module, Generic[AnyObjective]):
    """A module whose forward pass is the loss of one chunk of a batch, so that DDP and autocast wrap it all.

    Args:
        settings: the ``[train]`` section.
        context: the family and its samples.

    Attributes:
        context: the family and its samples.
        objectives: those that the recipe asks for, by name.
    """

    #: The class of the objectives that this learner adds up.
    kind: ClassVar[type[Objective]]

    def __init__(self, settings: TrainSettings, context: Context):
        super().__init__()
        self.context = context
        self.objectives: list[AnyObjective] = []
        for objective in objectives.find().values():
            keys = objectives.settings_of(objective, settings) if issubclass(objective, self.kind) else None
            if keys is not None and objective.weight_of(keys, context.family.tasks):
                self.objectives.append(_made(objective, keys, context))
        later = [type(one).name for one in self.objectives if one.lr is not None]
        if len(later) > 1:
            raise TrainingError(
                f"The objectives {' and '.join(later)} each have a learning rate of their own; only one can.",
                "Leave out one of them, or its learning rate.",
            )
        #: before the family, whose parameters come last in the optimizer's groups
        self.own = nn.ModuleList(module for one in self.objectives if (module := one.module) is not None)

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that the model learns."""
        return frozenset().union(*(one.tasks for one in self.objectives))

    @abstractmethod
    def chunks(self, batch: Any, samples: Callable[[], Sequence[Any]], step: Step) -> Sequence[Any]:
        """The parts of a batch, each of which is one forward and one backward pass.

        Args:
            batch: of the collator, on the model's device.
            samples: gives the batch's samples, where an objective asks for them.
            step: the optimizer step that the batch belongs to.
        """

    @abstractmethod
    def forward(self, chunk: Any) -> Output: ...

    @abstractmethod
    def trial(self, batch: Any) -> None:
        """Gradients of one batch of the collator; leaves no other trace."""

    @property
    def family(self) -> Family:
        """In training."""
        return self.context.family

    @property
    def later(self) -> AnyObjective | None:
        """The objective that begins later, with a learning rate of its own, if there is one."""
        return next((one for one in self.objectives if one.lr is not None), None)

    def callbacks(self) -> list[Any]:
        """Callbacks of the objectives for the Trainer."""
        return [callback for one in self.objectives for callback in one.callbacks()]

    def validated_weights(self) -> AbstractContextManager[Any]:
        """While this lasts, the family has the weights that are validated."""
        with ExitStack() as stack:
            for objective in self.objectives:
                stack.enter_context(objective.validated_weights())
            return stack.pop_all()

    def save(self, checkpoint: Path) -> None:
        """Writes what is trained or remembered besides the family's weights; only one process calls it."""
        for objective in self.objectives:
            objective.save(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Reads what ``save`` wrote."""
        for objective in self.objectives:
            objective.load(checkpoint)

    def finish(self) -> None:
        """Gives the family the weights that are validated, for good."""
        for objective in self.objectives:
            objective.finish()


def _made(objective: type[Objective], settings: Any, context: Context) -> Any:
    missing = sorted(objective.tasks - context.family.tasks)
    if missing:
        keys = {None: f"[train.{objective.name}]", "": "[train]"}
        key = keys.get(objective.section, f"[train.{objective.section}] {objective.name}")
        remedies = {None: f"Leave {key} out, or give", "": "Give"}
        remedy = remedies.get(objective.section, f"Set {objective.name} = 0, or give")
        raise TrainingError(
            f"{key}: this {context.family.name()} model can't {_TASKS[missing[0]]}.",
            f"{remedy} a checkpoint that can.",
        )
    return objective(settings, context)
