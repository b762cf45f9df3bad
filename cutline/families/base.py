"""What a family is: one model type behind the calls that everything else uses.

A family is the only code that knows a model's name, prompt, label layout and parameter names. Shapes in this folder:
N images, R rows (one for each image and caption), T image tokens, L text tokens, C vision width, D text width,
V vocabulary.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from cutline.core.errors import CheckpointError
from cutline.core.files import write_atomically
from cutline.core.records import Sample
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.image_policy import fixed_size
from cutline.families.outputs import Generation, Loss
from cutline.families.seeding import seeded
from cutline.families.settings import GenerateSettings, ImagePolicy, ModelSettings
from cutline.families.weights import adapters, quantize
from cutline.families.weights.quantize import Quantization
from cutline.images.open import open_sample

#: Opaque outside its family, but for "labels" ([R, L], IGNORED where nothing is predicted) and, optionally, "weights"
#: ([R], what each row's likelihood counts).
Batch = dict[str, Tensor]

#: File in a checkpoint that holds what Hugging Face's files have no place for.
POLICY_FILE = "cutline.json"
_WORDS = {"caption": "write captions", "embed": "embed images and texts", "match": "match images with texts"}


class Family(nn.Module, ABC):
    """A model, its processor, and how images and captions go in and out.

    An ``nn.Module`` whose forward is the training loss, so that the trainer's wrappers (DDP, FSDP, autocast) see one
    call that runs everything.

    Attributes:
        model: the Hugging Face model.
        image_processor, tokenizer: its real processors.
        prompt: text before the caption; "" for families without one.
        policy: how photographs become pixels.
        generation: generation settings kept with the checkpoint, or None.
        origin: the checkpoint that was opened (an absolute path or a hub name); None for new models.
        quantized: "nf4" or "int8" where the text part is, else None.
        trained: names of parameters in ``model`` that differ from the origin's.
        untrained_tasks: those of ``tasks`` whose weights are newly initialised, since no training was for them.
    """

    #: What the model can do: "caption", "embed", "match". Where a family's checkpoints differ, its base class says all
    #: of it, and opens and builds the class that a checkpoint or a task needs.
    tasks: ClassVar[frozenset[str]]
    #: What of it a new model (``[model.new]``) begins without having learnt, where that may be told apart.
    starts_untrained: ClassVar[frozenset[str]] = frozenset()
    #: The model's class, of transformers or ours; None: what ``AutoModelForImageTextToText`` takes.
    architecture: ClassVar[Any] = None
    #: Parameters that no forward pass here uses; they are never trained.
    unused: str = r"(?!)"
    #: Parameters that only embedding and matching use; a training for captions leaves them.
    unused_by_captions: ClassVar[str] = r"(?!)"
    default_prompt: ClassVar[str] = ""
    #: Stretches of the text before the caption that attend to all of themselves, forwards too: "prompt", "image".
    bidirectional: ClassVar[frozenset[str]] = frozenset()
    #: Whether a training step is a row of small ones, which two threads only make slower (recurrent decoders).
    serial: ClassVar[bool] = False

    def __init__(self, model: nn.Module, image_processor: Any, tokenizer: Any, prompt: str | None = None):
        super().__init__()
        self.model: Any = model
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.prompt = self.default_prompt if prompt is None else prompt
        self.policy = ImagePolicy()
        self.untrained_tasks = frozenset[str]()
        self.generation: GenerateSettings | None = None
        self.origin: str | None = None
        self.quantized = quantize.finish(model)
        self.trained: set[str] = set()
        self.config: Any = self.model.config

    # ---- three ways to come into being: open a checkpoint, build a new model, draw a tiny one

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        """Opens a checkpoint, on the CPU unless it is quantised elsewhere.

        This one is for an ``architecture`` whose image processor and tokenizer are saved side by side.

        Args:
            checkpoint: folder or hub name.
            dtype: dtype of the weights that aren't quantised.
            quantization: how the text part is quantised; None: not at all.
        """
        model = cls.from_pretrained(cls.architecture, checkpoint, dtype, quantization)
        image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        except ImportError as error:
            raise CheckpointError(
                f"The tokenizer of {checkpoint} needs a package that isn't here: {str(error).strip().splitlines()[0]}",
                "Install it: pip install sentencepiece protobuf",
            ) from error
        return cls(model, image_processor, tokenizer)

    @classmethod
    def new(cls, settings: Mapping[str, Any], captions: Sequence[str], seed: int = 0) -> Self:
        """Builds a model from scratch, or from parts, as ``[model.new]`` says.

        Args:
            settings: the section.
            captions: training captions, which a vocabulary is built from.
            seed: seed of the weights.

        Raises:
            CheckpointError: this family opens checkpoints only, or the section is wrong.
        """
        with seeded(seed):
            return cls._new(settings, captions)

    @classmethod
    def tiny(
        cls,
        captions: Sequence[str] = (),
        seed: int = 0,
        *,
        task: str = "",
        new: Mapping[str, Any] | None = None,
        checkpoint: str = "",
    ) -> Self:
        """A random two-layer model of the real classes with its real processor, built offline.

        Args:
            captions: what a vocabulary is built from, for families that build theirs.
            seed: seed of the weights.
            task: "caption", "embed" or "match", where a family's checkpoints differ by task.
            new: a ``[model.new]`` section whose kind (its cell, its projector) the model takes, in small.
            checkpoint: a checkpoint's name, where a family's checkpoints differ in kind.
        """
        with seeded(seed):
            if new is not None:
                return cls._tiny_new(new, captions)
            return cast(Self, cls._class_for(task, checkpoint)._tiny(captions))

    # ---- what families give for it; random numbers are seeded when these are called

    @classmethod
    def _new(cls, settings: Mapping[str, Any], captions: Sequence[str]) -> Self:
        """``new``, for families that can be built from scratch or from parts."""
        raise CheckpointError(
            f"{cls.name()} models can't be built from scratch.", "Give [model] checkpoint = … instead of [model.new]."
        )

    @classmethod
    @abstractmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        """``tiny`` of this very class."""

    @classmethod
    def _tiny_new(cls, new: Mapping[str, Any], captions: Sequence[str]) -> Self:
        """``tiny`` of the kind that ``[model.new]`` describes, for families with kinds."""
        return cls._tiny(captions)

    @classmethod
    def variants(cls) -> tuple[type[Family], ...]:
        """The classes that this family's checkpoints open as."""
        return (cls,)

    @classmethod
    def _class_for(cls, task: str, checkpoint: str) -> type[Family]:
        """The variant for a task, and of the kind that a checkpoint's name says."""
        return cls

    @classmethod
    def class_of(cls, config: Any) -> type[Family]:
        """The variant that a checkpoint with this configuration opens as."""
        return cls

    @classmethod
    def build(cls, config: Any) -> nn.Module:
        """The model of a configuration, with new weights."""
        return cls.architecture(config) if cls.architecture else AutoModelForImageTextToText.from_config(config)  # type: ignore[no-any-return]

    @classmethod
    def config_of_new(cls, new: Mapping[str, Any], config_of: Callable[[str], Any]) -> Any:
        """The configuration of what ``[model.new]`` describes, for families whose size doesn't depend on the captions.

        Args:
            new: the section.
            config_of: a checkpoint's name → its configuration.
        """
        raise CheckpointError(
            f"The size of a new {cls.name()} model depends on its training captions.",
            "Training prints the table of parameters when it starts.",
        )

    @classmethod
    def from_pretrained(
        cls, architecture: Any, checkpoint: str, dtype: torch.dtype, quantization: Quantization | None, **options: Any
    ) -> Any:
        """``architecture.from_pretrained``; a weight that the checkpoint lacks is an error instead of a random draw.

        Args:
            architecture: the model's class.
            checkpoint: folder or hub name.
            dtype: dtype of the weights that aren't quantised.
            quantization: how the text part is quantised; None: not at all.
            options: more arguments of ``from_pretrained``.
        """
        if quantization is not None:
            options |= quantize.options(cls, architecture, checkpoint, quantization, options.get("config"))
        model, loading = architecture.from_pretrained(checkpoint, dtype=dtype, output_loading_info=True, **options)
        missing = sorted(name for name in loading["missing_keys"] if not re.match(cls.unused, name))
        if missing:
            raise CheckpointError(
                f"{checkpoint} lacks {len(missing):,} weights that {cls.name()} needs: {', '.join(missing[:3])} ….",
                "Download the checkpoint again, or check that it belongs to this family.",
            )
        return model

    # ---- names, tasks, saving

    #: The name of the entry point, for a family of another package.
    registered_name: ClassVar[str] = ""

    @classmethod
    def name(cls) -> str:
        return cls.registered_name or cls.__module__.rpartition(".")[2]

    def require(self, task: str, trained: bool = True) -> None:
        """Raises a CheckpointError unless the model can do a task (with ``trained`` False: could be trained for it)."""
        if task not in self.tasks:
            raise self._unable(task)
        if trained and task in self.untrained_tasks:
            problem = f"This {self.name()} model was never trained to {_WORDS[task]}: its weights for it are random."
            remedy = "Train it for that, too ([train.retrieval]: itc to embed, itm to match, lm to write captions)."
            raise CheckpointError(problem, remedy)

    def _unable(self, task: str) -> CheckpointError:
        able = " and ".join(_WORDS[one] for one in sorted(self.tasks))
        problem = f"This {self.name()} model can't {_WORDS[task]}; it can {able}."
        return CheckpointError(problem, "Give a checkpoint that was made for it.")

    def save(self, folder: str | Path) -> None:
        """Writes a checkpoint; ``cutline.json`` last.

        Usually a whole one, which ``open`` and the Hugging Face Auto classes open. With adapters or a quantised text
        part, only what was trained (see ``weights/adapters.py``), beside the name of the origin. A new model has no
        origin, so its adapters are merged.
        """
        folder = Path(folder)
        if self.is_light:
            adapters.save(self, folder)
        else:
            adapters.merge(self)
            self.model.save_pretrained(folder)
            self.image_processor.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        self.save_policy(folder)

    @property
    def is_light(self) -> bool:
        """Whether a checkpoint of it holds only what was trained."""
        return self.origin is not None and (self.quantized is not None or bool(adapters.layers(self)))

    def save_policy(self, folder: str | Path) -> None:
        """Writes ``cutline.json``: prompt, image policy and generation settings, and a light checkpoint's base."""
        kept: dict[str, Any] = {
            "family": self.name(),
            "prompt": self.prompt,
            "image": self.policy.model_dump(exclude_none=True),
            "generate": self.generation.model_dump() if self.generation else None,
        }
        if self.untrained_tasks:
            kept["untrained_tasks"] = sorted(self.untrained_tasks)
        if self.is_light:
            kept |= {"base": self.origin, "quantize": self.quantized or "none"}
        write_atomically(Path(folder) / POLICY_FILE, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")

    def read_policy(self, checkpoint: str | Path) -> None:
        """Takes prompt, image policy and generation settings from a checkpoint that ``save`` wrote."""
        path = Path(checkpoint) / POLICY_FILE
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.prompt = kept["prompt"]
            self.policy = ImagePolicy(**kept["image"])
            self.generation = GenerateSettings(**kept["generate"]) if kept["generate"] else None
            self.untrained_tasks = frozenset(kept.get("untrained_tasks", ()))

    def configure(self, settings: ModelSettings) -> None:
        """Applies a recipe's prompt and image policy."""
        if settings.prompt is not None:
            self.prompt = settings.prompt
        if settings.image != ImagePolicy():
            self.set_policy(settings.image)

    def set_policy(self, policy: ImagePolicy) -> None:
        """Applies an image policy. This one is for models of one fixed input size."""
        if policy.min_pixels or policy.max_pixels:
            raise CheckpointError(
                f"{self.name()} has a fixed input size; min_pixels and max_pixels don't apply.",
                "Use [model.image] size.",
            )
        if policy.tiles:
            raise CheckpointError(
                f"{self.name()} cuts no image into tiles; tiles doesn't apply.", "Leave [model.image] tiles out."
            )
        fixed_size(self.image_processor, policy)
        self.policy = policy

    # ---- structure

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, str]:
        """Ordered part → regex over the model's parameter names; the first match counts, together they cover all.

        A group ``(?P<layer>\\d+)`` numbers a part's layers, for ``last:N``.
        """

    # ---- images

    def pixels(self, images: Sequence[Image]) -> Batch:
        """RGB images → the tensors that ``encode_images`` takes; for fixed sizes ``pixel_values`` [N, 3, H, W]."""
        return {"pixel_values": self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]}

    @abstractmethod
    def encode_images(self, batch: Batch) -> Batch:
        """What the vision part says: ``features`` [N, T, C], before the bridge. The seam for caching and sharing."""

    def split_features(self, features: Batch) -> list[Batch]:
        """A batch of features, taken apart by image."""
        return [{"features": one} for one in features["features"]]

    def join_features(self, features: Sequence[Batch]) -> Batch:
        """The inverse of ``split_features``."""
        # each by itself: under bfloat16's autocast a CPU can't stack the float16 of a cache
        return {"features": torch.stack([one["features"].to(self.dtype) for one in features])}

    def vision_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The weights and buffers that features depend on, by name."""
        for name, tensor in self.model.state_dict().items():
            if self.part_of(name) == "vision":
                yield name, tensor

    # ---- batches of families that caption; those that embed have theirs in common/retrieval.py

    def collate(
        self,
        samples: Sequence[Sample],
        *,
        with_targets: bool,
        images: Sequence[Image] | None = None,
        pixels: Sequence[Batch] | None = None,
        features: Sequence[Batch] | None = None,
    ) -> Batch:
        """Samples → a batch.

        Args:
            samples: images, each with the captions that it is trained on.
            with_targets: for the loss (a row for each caption) or for generation (a row for each image, no caption).
            images: the opened images; opened here if neither they nor pixels nor features are given.
            pixels: the output of ``pixels`` for each image, instead of the images.
            features: the output of ``encode_images`` for each image, instead of the images.
        """
        self.require("caption", trained=False)
        visual = self.image_inputs(samples, images, pixels, features)
        return visual | self.text_inputs(samples, visual, with_targets)

    def text_inputs(self, samples: Sequence[Sample], visual: Batch, with_targets: bool) -> Batch:
        """The text side of ``collate``: the only place where prompts and labels are made.

        Args:
            samples: N samples.
            visual: the image side of their batch.
            with_targets: as for ``collate``.
        """
        raise self._unable("caption")

    def image_inputs(
        self,
        samples: Sequence[Sample],
        images: Sequence[Image] | None,
        pixels: Sequence[Batch] | None,
        features: Sequence[Batch] | None,
    ) -> Batch:
        """The image side of ``collate``: cached features where there are any, else pixels."""
        if features is not None:
            return self.join_features(features)
        if pixels is not None:
            return {name: torch.cat([one[name] for one in pixels]) for name in pixels[0]}
        if images is None:
            images = [open_sample(sample) for sample in samples]
        return self.pixels(images)

    def with_image_features(self, batch: Batch) -> Batch:
        """The batch with its features: those it brings, or what the vision part says now."""
        if "features" in batch:
            return batch
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vision_is_frozen):
            return batch | self.encode_images(batch)  # a frozen tower must not keep its activations

    def freeze_boundary(self) -> bool:
        """Lets ``encode_images`` end below the first trained layer, where a family can split its tower.

        Returns:
            Whether all that ``encode_images`` runs is frozen, so that its features can be cached. Without a split tower
            that is the whole vision part.
        """
        return self.vision_is_frozen

    @property
    def vision_is_frozen(self) -> bool:
        return not any(p.requires_grad for name, p in self.model.named_parameters() if self.part_of(name) == "vision")

    def part_of(self, name: str) -> str | None:
        """The part that a parameter belongs to, by its name in ``model``."""
        return next((part for part, pattern in self.parts.items() if re.match(pattern, name)), None)

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> Loss:
        """The loss over all label tokens of a batch made with targets."""
        raise self._unable("caption")

    def loss(self, batch: Batch) -> Loss:
        """See ``forward``."""
        return self.forward(batch)

    def generate(
        self,
        batch: Batch,
        settings: GenerateSettings,
        *,
        forced: ForcedDecoding | None = None,
        num_return_sequences: int = 1,
    ) -> list[Generation]:
        """Captions for a batch made without targets, in the order of its images.

        Args:
            batch: from ``collate`` with ``with_targets=False``.
            settings: how to generate.
            forced: makes the model produce given tokens, and records its scores.
            num_return_sequences: captions sampled for each image, those of an image next to each other.
        """
        raise self._unable("caption")

    # ---- state

    @property
    def dtype(self) -> torch.dtype:
        """What pixels and features are given in: the vision part's dtype. Parts that are trained may differ from it."""
        for name, parameter in self.model.named_parameters():
            if parameter.is_floating_point() and self.part_of(name) == "vision":
                found: torch.dtype = parameter.dtype
                return found
        return self.model.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for modules without a trainable parameter: a frozen tower has no dropout and moves no
        BatchNorm statistics."""
        super().train(mode)
        if mode:
            trainable, present = set(), set()
            for name, parameter in self.model.named_parameters():
                above = [name[:end] for end, sign in enumerate(name) if sign == "."]
                present.update(above)
                if parameter.requires_grad:
                    trainable.update(above)
            for name, module in self.model.named_modules():
                if name in present and name not in trainable:
                    module.eval()
        return self
