"""The recipe's ``[train]`` section."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cutline.core.config import Section
from cutline.families.settings import Dtype, LoraSettings

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
        description="what is trained in this stage; parts that are not named are frozen",
    )
    epochs: float = Field(1, gt=0, description="epochs of this stage")
    max_steps: int | None = Field(None, ge=1, description="stop this stage after so many steps, whatever epochs says")
    lr: float = Field(1e-3, gt=0, description="peak learning rate of this stage")
    batch_size: int | None = Field(None, ge=1, description="examples a device and step; none: as in [train]")
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="batches that make one step; none: as in [train]"
    )

    _policies = field_validator("parts")(_check_policies)


class GuardSettings(Section):
    """``[train.guards]``: what stops a training that went wrong."""

    enabled: bool = Field(True, description="whether captions and losses are judged while training")
    images: int = Field(8, ge=2, description="validation images that are captioned each time, and one blank one")
    every: int | Literal["auto"] = Field("auto", description="steps between panels; auto: a twentieth, 50 to 500")
    patience: int = Field(3, ge=1, description="bad panels, or bad losses, one after another that stop the training")
    grace: float = Field(
        0.5, ge=0, le=1, description="share of the training that a model has to say something sound for the first time"
    )


class RetrievalSettings(Section):
    """``[train.retrieval]``: training for retrieval instead of captions, for families that embed."""

    itc: float = Field(1.0, ge=0, description="weight of the contrastive loss (ITC)")
    itm: float | Literal["auto"] = Field(
        "auto",
        description="weight of image-text matching (ITM) with hard negatives; auto: 1 for models that match, else 0",
    )
    itm_share: float = Field(
        1.0, gt=0, le=1, description="share of a batch's captions that ITM learns from, drawn anew each time; 1: all"
    )
    itm_warmup: float = Field(
        0.0,
        ge=0,
        description="epochs in which ITM's negatives turn from any into hard ones, which a matching head from scratch "
        "needs; 0: hard from the beginning, as published",
    )
    lm: float = Field(0.0, ge=0, description="weight of the captions' likelihood (LM), for models that write, too")
    loss: Literal["auto", "softmax", "sigmoid"] = Field(
        "auto",
        description="the contrastive loss: over all candidates, or pair by pair; auto: as the family was trained",
    )
    mini_batch_size: int | None = Field(
        None,
        ge=1,
        description="examples whose activations are in memory at a time; the loss is that of the whole batch "
        "(gradient caching); none: all of them",
    )
    momentum: float | None = Field(
        None, gt=0, lt=1, description="of a slow copy of the encoders, which makes the keys of ITC; none: no copy"
    )
    queue: int = Field(
        0, ge=0, description="keys of earlier steps that stay as candidates, of each kind; needs momentum"
    )
    alpha: float = Field(
        0.0, ge=0, lt=1, description="share of the slow copy's distribution in the target of ITC; needs momentum"
    )
    alpha_warmup: float = Field(
        1.0, ge=0, description="epochs in which alpha rises from 0; published: 1 for fine-tuning, 2 for pretraining"
    )
    rerank: int = Field(
        0, ge=0, description="validation: nearest candidates of each query that are ranked anew by ITM; 0: ITC alone"
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
    def _fits(self) -> RetrievalSettings:
        if self.itm != "auto" and self.itm < 0:
            raise ValueError("itm is below 0")
        if self.momentum is None and (self.queue or self.alpha):
            raise ValueError("queue and alpha need momentum, for example 0.995")
        if not (self.itc or self.itm or self.lm):
            raise ValueError("itc, itm and lm are all 0; there is nothing to learn")
        return self

    def weights(self, can: frozenset[str]) -> dict[str, float]:
        """The weights of the losses for a model that can do these tasks."""
        itm = float("match" in can) if self.itm == "auto" else self.itm
        return {"itc": self.itc, "itm": itm, "lm": self.lm}

    def teaches(self, can: frozenset[str]) -> frozenset[str]:
        """The tasks that a model which can do these learns."""
        tasks = {"itc": "embed", "itm": "match", "lm": "caption"}
        return frozenset(tasks[name] for name, weight in self.weights(can).items() if weight)


class ScstSettings(Section):
    """``[train.scst]``: self-critical sequence training, which rewards sampled captions by CIDEr.

    Source: Rennie et al. 2017, arXiv:1612.00563.
    """

    start_epoch: float = Field(ge=0, description="epochs of the usual training before the first self-critical step")
    lr: float = Field(1e-4, gt=0, description="learning rate of self-critical steps, falling to 0; keep it low")
    samples: int = Field(5, ge=2, description="captions sampled for each image of a self-critical step")
    interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="weights that are validated and saved: 0 are those before the first self-critical step, 1 the "
        "current ones, and between them a linear interpolation",
    )


class TrainSettings(Section):
    parts: dict[str, str] = Field(
        default_factory=dict,
        description='what is trained of each part (vision, bridge, text, head): "frozen", "full" or "last:N" (its last '
        "N layers); parts that are not named are trained in full",
    )
    lora: LoraSettings = LoraSettings()
    align: AlignSettings | None = Field(None, description="a stage before, which trains the bridge alone")
    retrieval: RetrievalSettings | None = Field(None, description="train for retrieval instead of captions")
    scst: ScstSettings | None = Field(None, description="finish with self-critical training, which rewards CIDEr")
    epochs: float = Field(10, gt=0, description="times that each image–caption pair is seen")
    max_steps: int | None = Field(None, ge=1, description="stop after so many steps, whatever epochs says")
    batch_size: int = Field(32, ge=1, description="examples a device and step: images with captions_per_image captions")
    gradient_accumulation_steps: int = Field(1, ge=1, description="batches whose gradients make one step together")
    captions_per_image: int | Literal["all"] = Field(
        1, description='captions of an image that one example holds; "all" sees each image once an epoch, and is faster'
    )
    horizontal_flip: bool = Field(
        False, description="mirror a half of the images, but none whose captions say what is left or right"
    )
    drop_context: float = Field(
        0.0, ge=0, le=1, description="share of the examples whose prompt has no context, drawn anew each epoch"
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    part_lr: dict[str, float] = Field(
        default_factory=dict,
        description="peak learning rate of parts that differ from lr; same schedule, in proportion",
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="of the learning rate, after warm-up"
    )
    warmup_steps: float = Field(0.05, ge=0, description="steps of warm-up; below 1 a share of all steps")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end of the cosine")
    optimizer: str = Field(
        "adamw_torch",
        description="any optimiser name of Hugging Face's Trainer; "
        '"adamw_8bit" and "paged_adamw_8bit" need cutline[bnb]',
    )
    weight_decay: float = Field(0.01, ge=0, description="of matrices; biases and norms have none")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of Adam's moments")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over the vocabulary")
    precision: Dtype = Field("auto", description="of the arithmetic; auto: bfloat16 on a GPU that has it, else float32")
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    eval_steps: int | Literal["epoch"] = Field("epoch", description="steps between validations, each with a checkpoint")
    metric: str = Field("cider", description="score of the generated validation captions that chooses the checkpoint")
    val_images: int | None = Field(None, ge=2, description="validation images to caption each time; none: all")
    val_num_beams: int = Field(1, ge=1, description="beams of the captions made for validation")
    val_max_new_tokens: int = Field(40, ge=1, description="longest caption made for validation, in tokens")
    patience: int = Field(0, ge=0, description="stop after so many validations without a better score; 0: never")
    save_total_limit: int = Field(2, ge=2, description="checkpoints kept for going on; one more is the best")
    cache_features: bool = Field(True, description="compute a frozen vision part's features once and keep them on disk")
    cache_dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="of the features on disk")
    dataloader_num_workers: int = Field(
        0, ge=0, description="processes that prepare batches; 0: the training process itself"
    )
    guards: GuardSettings = GuardSettings()
    logging_steps: int = Field(20, ge=1, description="steps between lines of the log")
    fsdp: str | None = Field(None, description='as the Trainer has it ("full_shard"), under torchrun')
    fsdp_config: str | None = Field(None, description="a JSON file with more of FSDP's settings")
    deepspeed: str | None = Field(None, description="a DeepSpeed configuration, a JSON file")
    report_to: list[str] = Field(default_factory=list, description='"tensorboard", "wandb", "trackio", "mlflow", …')

    _policies = field_validator("parts")(_check_policies)

    @model_validator(mode="after")
    def _positive(self) -> TrainSettings:
        if self.captions_per_image != "all" and self.captions_per_image < 1:
            raise ValueError("captions_per_image is below 1")
        if self.eval_steps != "epoch" and self.eval_steps < 1:
            raise ValueError("eval_steps is below 1")
        if self.retrieval and self.scst:
            raise ValueError("scst rewards captions; leave it out of a training for retrieval")
        if self.retrieval and self.drop_context:
            raise ValueError("drop_context is of prompts; a training for retrieval has none")
        return self

    @property
    def chosen_by(self) -> str:
        """The score that chooses the checkpoint."""
        return self.retrieval.metric if self.retrieval else self.metric
