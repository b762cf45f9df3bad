"""The recipe's ``[train]`` section."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cutline.core.config import Section
from cutline.families.settings import Dtype, LoraSettings
from cutline.train import objectives
from cutline.train.objective import CaptionObjective

_POLICY = re.compile(r"frozen|full|lora|last:[1-9]\d*")


def _check_policies(parts: dict[str, str]) -> dict[str, str]:
    for part, policy in parts.items():
        if not _POLICY.fullmatch(policy):
            raise ValueError(f'{part} = "{policy}" is none of "frozen", "full", "lora", "last:N"')
    return parts


class AlignSettings(Section):
    """``[train.align]``: a first stage in which the bridge learns to speak the language model's language.

    Two stages as in LLaVA (Liu et al. 2023, arXiv:2304.08485). What isn't said here is as in ``[train]``; the stage
    ends with its last step, not with its best validation, and the main stage has its own optimiser and schedule.
    """

    parts: dict[str, str] = Field(
        default_factory=lambda: {"bridge": "full"},
        description="policy of each part in this stage; parts that are not named are frozen",
    )
    epochs: float = Field(1, gt=0, description="number of epochs of this stage")
    max_steps: int | None = Field(
        None, ge=1, description="number of optimizer steps after which this stage stops; overrides epochs"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate of this stage")
    batch_size: int | None = Field(None, ge=1, description="examples per device and batch; none: as in [train]")
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="batches per optimizer step; none: as in [train]"
    )

    _policies = field_validator("parts")(_check_policies)


class GuardSettings(Section):
    """``[train.guards]``: what stops a training that went wrong."""

    enabled: bool = Field(True, description="whether captions and losses are checked while training")
    images: int = Field(8, ge=2, description="number of validation images captioned at each check, besides a blank one")
    every: int | Literal["auto"] = Field(
        "auto", description="steps between checks; auto: a twentieth of the training, 50 to 500"
    )
    patience: int = Field(3, ge=1, description="number of bad checks, or bad losses, in a row that stop the training")
    grace: float = Field(
        0.5, ge=0, le=1, description="share of the training that a model may take until its first sound captions"
    )


@objectives.extended("retrieval")
class RetrievalSettings(Section):
    """``[train.retrieval]``: training for retrieval instead of captions, for families that embed images and texts.

    The weights of the losses, and what belongs to them, are keys of the objectives.
    """

    mini_batch_size: int | None = Field(
        None,
        ge=1,
        description="images whose activations are in memory at a time; the loss is still that of the whole batch "
        "(gradient caching); none: all of them",
    )
    rerank: int = Field(
        0,
        ge=0,
        description="validation: candidates of each query that are re-ranked by image–text matching; 0: none",
    )
    metric: Literal[
        "mean_recall",
        "tr_recall_at_1",
        "tr_recall_at_5",
        "tr_recall_at_10",
        "ir_recall_at_1",
        "ir_recall_at_5",
        "ir_recall_at_10",
    ] = Field("mean_recall", description="recall on the validation images that chooses the checkpoint")

    @model_validator(mode="after")
    def _asks_for_something(self) -> RetrievalSettings:
        here = {name: one for name, one in objectives.find().items() if one.section == "retrieval"}
        if not any(one.weight_of(self, one.tasks) for one in here.values()):
            raise ValueError(f"{_listed(here)} are all 0; there is nothing to learn")
        return self


@objectives.extended("")
class TrainSettings(Section):
    """``[train]``: what is trained, how, and how it is validated."""

    parts: dict[str, str] = Field(
        default_factory=dict,
        description='training policy of each part (vision, bridge, text, head): "frozen", "full", "lora" or "last:N" '
        "(its last N layers); parts that are not named are trained in full",
    )
    lora: LoraSettings = LoraSettings()
    align: AlignSettings | None = Field(None, description="a first stage, which trains the bridge alone")
    retrieval: RetrievalSettings | None = Field(None, description="training for retrieval instead of captions")
    epochs: float = Field(10, gt=0, description="number of epochs: how often each image–caption pair is seen")
    max_steps: int | None = Field(
        None, ge=1, description="number of optimizer steps after which training stops; overrides epochs"
    )
    batch_size: int = Field(
        32, ge=1, description="examples per device and batch; an example is an image with captions_per_image captions"
    )
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="batches per optimizer step, whose gradients are added"
    )
    captions_per_image: int | Literal["all"] = Field(
        1, description='number of captions in an example; "all" sees each image once an epoch, and is faster'
    )
    horizontal_flip: bool = Field(
        False, description="whether half of the images are mirrored; images whose captions name left or right never are"
    )
    drop_context: float = Field(
        0.0, ge=0, le=1, description="share of the examples whose prompt has no context, drawn for each epoch"
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    part_lr: dict[str, float] = Field(
        default_factory=dict,
        description="peak learning rates of parts that differ from lr; the schedule is the same",
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="schedule of the learning rate after the warm-up"
    )
    warmup_steps: float = Field(0.05, ge=0, description="number of warm-up steps; below 1, a share of all steps")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end of the cosine")
    optimizer: str = Field(
        "adamw_torch",
        description="any optimizer name of Hugging Face's Trainer; "
        '"adamw_8bit" and "paged_adamw_8bit" need cutline[bnb]',
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of matrices; biases and norms have none")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's beta1 and beta2")
    max_grad_norm: float = Field(1.0, gt=0, description="maximum norm that gradients are clipped to")
    precision: Dtype = Field(
        "auto", description="precision of the arithmetic; auto: bfloat16 on a GPU that supports it, else float32"
    )
    gradient_checkpointing: bool = Field(
        False, description="whether activations are computed twice instead of kept, to save memory"
    )
    eval_steps: int | Literal["epoch"] = Field(
        "epoch", description="steps between validations; each saves a checkpoint"
    )
    metric: str = Field("cider", description="score of the generated validation captions that chooses the checkpoint")
    val_images: int | None = Field(None, ge=2, description="number of validation images captioned each time; none: all")
    val_num_beams: int = Field(1, ge=1, description="number of beams for validation captions")
    val_max_new_tokens: int = Field(40, ge=1, description="maximum length of validation captions, in tokens")
    patience: int = Field(
        0, ge=0, description="number of validations without a better score after which training stops; 0: never"
    )
    save_total_limit: int = Field(
        2, ge=2, description="number of checkpoints kept to resume from, besides the best one"
    )
    cache_features: bool = Field(
        True, description="whether the features of a frozen vision part are computed once and kept on disk"
    )
    cache_dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16", description="dtype of the features on disk"
    )
    dataloader_num_workers: int = Field(
        0, ge=0, description="number of processes that prepare batches; 0: the training process itself"
    )
    guards: GuardSettings = GuardSettings()
    logging_steps: int = Field(20, ge=1, description="steps between log entries")
    fsdp: str | None = Field(None, description='FSDP mode, as in the Trainer ("full_shard"); run with torchrun')
    fsdp_config: str | None = Field(None, description="path of a JSON file with FSDP settings")
    deepspeed: str | None = Field(None, description="path of a JSON file with a DeepSpeed configuration")
    report_to: list[str] = Field(
        default_factory=list, description='trackers to report to: "tensorboard", "wandb", "trackio", "mlflow", …'
    )

    _policies = field_validator("parts")(_check_policies)

    @model_validator(mode="after")
    def _positive(self) -> TrainSettings:
        if self.captions_per_image != "all" and self.captions_per_image < 1:
            raise ValueError("captions_per_image is below 1")
        if self.eval_steps != "epoch" and self.eval_steps < 1:
            raise ValueError("eval_steps is below 1")
        if self.retrieval and self.drop_context:
            raise ValueError("drop_context changes prompts, and a training for retrieval has none")
        for name, objective in objectives.find().items():
            own = objective.section is None and issubclass(objective, CaptionObjective)
            if self.retrieval and own and getattr(self, name) is not None:
                raise ValueError(f"{name} and retrieval can't be trained together; leave one out")
        return self

    def without_later_objectives(self) -> dict[str, None]:
        """Changes that leave out the sections of objectives of their own, which a stage before the main one hasn't."""
        return {name: None for name, objective in objectives.find().items() if objective.section is None}

    def rehearsed(self) -> TrainSettings:
        """What a rehearsal (``--tiny``) trains: a few steps; nothing that a random miniature writes can stop them."""
        shorter = self.model_copy(
            update={
                "max_steps": 4,
                "eval_steps": 2,
                "batch_size": 2,
                "gradient_accumulation_steps": min(2, self.gradient_accumulation_steps),
                "warmup_steps": 0.5,
                "patience": 0,
                "val_images": 4,
                "val_max_new_tokens": 8,
                "logging_steps": 1,
                "report_to": [],
                "precision": "auto",
                "fsdp": None,
                "deepspeed": None,
                "parts": _of_miniature(self.parts),
                "optimizer": self.optimizer.removeprefix("paged_"),
                "guards": self.guards.model_copy(update={"every": 2, "patience": 1000}),
            }
        )
        sections: dict[str, Section] = {}
        if self.align is not None:
            parts = _of_miniature(self.align.parts)
            sections["align"] = self.align.model_copy(update={"max_steps": 2, "parts": parts})
        if self.retrieval is not None:
            chunk = 1 if self.retrieval.mini_batch_size else None
            sections["retrieval"] = self.retrieval.model_copy(update={"mini_batch_size": chunk})
        for name, objective in objectives.find().items():
            key = name if objective.section is None else objective.section
            settings = objectives.settings_of(objective, shorter)
            if key and settings is not None:
                changes = objective.rehearsed(settings)
                sections[key] = sections.get(key, settings).model_copy(update=changes)
        return shorter.model_copy(update=sections)


def _of_miniature(parts: dict[str, str]) -> dict[str, str]:
    """Policies for a model of two layers: of "last:8" it has the last one."""
    return {part: "last:1" if policy.startswith("last:") else policy for part, policy in parts.items()}


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
