"""From a recipe's ``[model]`` section or a checkpoint to a family."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError

from cutline import families
from cutline.core import hub, ranks
from cutline.core.config import parse
from cutline.core.errors import CheckpointError
from cutline.core.threads import SetThreads, keep_threads
from cutline.families.base import POLICY_FILE, Family
from cutline.families.settings import Dtype, ImagePolicy, ModelSettings
from cutline.families.unsupported import explain_unsupported
from cutline.families.weights import adapters
from cutline.families.weights.quantize import Quantization

logger = logging.getLogger(__name__)


#: Models with fewer parameters are slower with a second thread.
SMALL = 2_000_000


def find(name: str) -> type[Family]:
    """The family of that name.

    Raises:
        CheckpointError: there is none.
    """
    name = name.replace("-", "_")  # some checkpoints spell it "vision-encoder-decoder"
    kind = cast("type[Family]", families.PLUGINS.find(name, Family))
    if name in families.PLUGINS.foreign:  # their files may have other names
        kind.registered_name = name
    return kind


def family_of(settings: ModelSettings) -> type[Family]:
    """The family that ``[model]`` names, or that its checkpoint's config.json does."""
    if settings.family is None:
        assert settings.checkpoint is not None  # the section's own check
        return find(_model_type(settings.checkpoint))
    wanted = find(settings.family)
    if settings.checkpoint is not None and Path(settings.checkpoint).is_dir():
        actual = _model_type(settings.checkpoint, refuse=False).replace("-", "_")
        if actual in families.names() and actual != wanted.name():  # it would open, with random weights
            raise CheckpointError(
                f"[model] family = {settings.family!r}, but {settings.checkpoint} is of the family {actual}.",
                "Leave [model] family out, or give another checkpoint.",
            )
    return wanted


def prompt_of(settings: ModelSettings) -> str:
    """The model's prompt: the recipe's, the one saved with its checkpoint, or its family's default."""
    if settings.prompt is not None:
        return settings.prompt
    kept = _kept(settings.checkpoint, "prompt") if settings.checkpoint else None
    return family_of(settings).default_prompt if kept is None else str(kept)


def _model_type(checkpoint: str, refuse: bool = True) -> str:
    """A checkpoint's model type; with ``refuse``, an error for types that no family opens."""
    folder = Path(checkpoint)
    if (folder / POLICY_FILE).is_file():
        return _entry(folder / POLICY_FILE, "family")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} has no config.json.", "Give the folder of a checkpoint.")
        kind = _entry(folder / "config.json", "model_type")
        if refuse:
            _refuse(json.loads((folder / "config.json").read_text(encoding="utf-8")), checkpoint)
        return kind
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file.", "Give the folder of a checkpoint.")
    # if there is a folder runs, a name such as runs/food is a path and not a name on the hub
    is_path = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1 or folder.parent.is_dir()
    if is_path and "/" in checkpoint:
        raise CheckpointError(f"There is no checkpoint folder {checkpoint}.", "Check the path.")
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(
            hub.resolve(checkpoint)
        )  # runs no code that comes with a checkpoint
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint} is neither a folder here nor a checkpoint that could be read from the hub.",
            "Check the name and the connection; for a rehearsal without the hub give [model] family and --tiny.",
        ) from error
    if refuse:
        _refuse(config, checkpoint)
    return str(config.get("model_type", ""))


def _refuse(config: Mapping[str, Any], checkpoint: str) -> None:
    reason = explain_unsupported(config, families.names())
    if reason:
        raise CheckpointError(f"{checkpoint} {reason[0]}", reason[1])


def _entry(path: Path, key: str) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))[key])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} lacks the checkpoint's {key}.", "Download the checkpoint again, or set [model] family."
        ) from error


def open_family(
    settings: ModelSettings,
    captions: Sequence[str] = (),
    *,
    tiny: bool = False,
    seed: int = 0,
    task: str = "caption",
    folder: Path | None = None,
    set_threads: SetThreads = keep_threads,
) -> Family:
    """Opens a recipe's model, builds it, or (tiny) draws a miniature of it, on its device and in its dtype.

    Args:
        settings: the ``[model]`` section.
        captions: training captions, which models built from scratch take their vocabulary from.
        tiny: a random miniature of the same architecture instead of the checkpoint.
        seed: seed of random weights.
        task: what the model is used for: "caption", "embed" or "match".
        folder: where the miniature of a checkpoint is saved and opened again as the checkpoint would be; without one
            it stays in memory and can't be quantised.
        set_threads: is asked for one thread where the model is small; by default the process keeps its threads.

    Raises:
        CheckpointError: it can't be opened, or can't do the task.
    """
    kind = family_of(settings)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    if tiny:
        if settings.new:
            family: Family = kind.tiny(captions, seed, new=settings.new)
        else:
            family = kind.tiny(captions, seed, task=task, checkpoint=settings.checkpoint or "")
        if folder is not None and settings.new is None:
            family.save(folder)
            family = _load(kind, str(folder), dtype, settings, device)
    elif settings.new is not None:
        family = kind.new(settings.new, captions, seed)
    else:
        family = _load(kind, str(settings.checkpoint), dtype, settings, device)
    family.require(task, trained=False)
    if settings.new is not None:
        family.untrained_tasks = family.starts_untrained
    if not tiny:
        before = (family.prompt, family.policy)
        family.configure(settings)
        if settings.checkpoint and _kept(settings.checkpoint, "family") and (family.prompt, family.policy) != before:
            logger.warning("the prompt or the image policy is not the one that this checkpoint was trained with")
    elif settings.prompt is not None:
        family.prompt = settings.prompt
    family = family.to(device=device, dtype=dtype).eval()
    limit_threads(family, set_threads)
    return family


def open_checkpoint(
    checkpoint: str | Path,
    dtype: Dtype = "auto",
    device: str = "auto",
    task: str = "caption",
    *,
    set_threads: SetThreads = keep_threads,
    **model: Any,
) -> Family:
    """Opens a checkpoint for inference: a folder that Cutline saved, a run folder, or any checkpoint of a family.

    Args:
        checkpoint: its folder or hub name.
        dtype, device, model: keys of ``[model]``.
        task: what the model is used for.
        set_threads: as for :func:`open_family`.
    """
    folder = Path(checkpoint)
    if (folder / "model" / POLICY_FILE).is_file():  # a run folder
        checkpoint = folder / "model"
    elif (folder / "recipe.toml").is_file() and not (folder / POLICY_FILE).is_file():
        raise CheckpointError(f"The run in {folder} has no model yet.", f"Finish it: cutline run {folder}/recipe.toml")
    wanted = {"checkpoint": str(checkpoint), "dtype": dtype, "device": device} | model
    family = open_family(parse(wanted, ModelSettings, where="the model"), task=task, set_threads=set_threads)
    family.require(task)
    return family


def _load(kind: type[Family], checkpoint: str, dtype: torch.dtype, settings: ModelSettings, device: Any) -> Family:
    base = _kept(checkpoint, "base") or checkpoint
    quantize = settings.quantize if settings.quantize != "auto" else _kept(checkpoint, "quantize") or "none"
    wanted = None
    if quantize != "none":
        wanted = Quantization(quantize, settings.double_quantize, _compute_dtype(settings, dtype, device), device)
    try:
        family = kind.open(hub.resolve(base), dtype, wanted)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        words = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{base} could not be opened as {kind.name()}: {type(error).__name__}: {words}",
            "Check that the folder is a complete checkpoint of that family."
            if Path(base).is_dir()
            else "Check the name and the connection.",
        ) from error
    family.origin = str(Path(base).resolve()) if Path(base).is_dir() else base
    if base != checkpoint:
        adapters.load(family, Path(checkpoint))
    family.read_policy(checkpoint)
    if base != checkpoint and family.policy != ImagePolicy():
        family.set_policy(family.policy)  # the image processor is the base's
    return family


def _kept(checkpoint: str, key: str) -> Any:
    """The value of a key in a checkpoint's ``cutline.json``; None without one."""
    path = Path(checkpoint) / POLICY_FILE
    return json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else None


def _compute_dtype(settings: ModelSettings, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if settings.compute_dtype != "auto":
        return choose_dtype(settings.compute_dtype, device)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return dtype


def limit_threads(family: Family, set_threads: SetThreads, *, training: bool = False) -> None:
    """Asks for one thread where more only wait for one another: small models on the CPU.

    Args:
        training: the model will be trained; then serial families of any size count as small.
    """
    small = sum(parameter.numel() for parameter in family.parameters()) < SMALL
    if family.device.type == "cpu" and (small or (training and family.serial)):
        set_threads(1)


def choose_device(name: str) -> torch.device:
    """The device that "auto" or a name stands for.

    Raises:
        CheckpointError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():  # under torchrun each process has its own
            mine = ranks.local()
            return torch.device("cuda") if mine is None else torch.device("cuda", mine)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"The device {name!r} can't be used here.", 'Give --device cpu, or "auto".') from error
    return device


def choose_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype of weights that "auto" or a name stands for."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
