"""Pretrained models that metrics use: CLIP, sentence encoders, and encoders of single tokens.

Vectors are cached, so references and images are encoded once for all validations and baselines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from cutline.core import hub
from cutline.core.errors import ScoreError
from cutline.core.progress import Bars, silent
from cutline.families.open import choose_device, choose_dtype
from cutline.images.open import ImageProblem, open_image
from cutline.metrics.base import some
from cutline.metrics.encoders import tiny_encoders
from cutline.metrics.encoders.encoder_settings import EncoderSettings, not_opened

Vectors = NDArray[np.float32]
Item = TypeVar("Item", bound=Hashable)

#: Longest text in tokens, where neither the tokenizer nor the model has a limit.
_LONGEST = 512
#: Token vectors that are remembered, at most.
_REMEMBERED_BYTES = 1 << 30


class Encoder:
    """A model with its tokenizer, in the precision asked for, without gradients.

    Args:
        metric: whose model it is, for messages.
        kind: which tiny model replaces the checkpoint with ``model = "tiny"``.

    Raises:
        ScoreError: the checkpoint can't be opened, or lacks weights.
    """

    unused = ("pooler.",)  # weights that no metric looks at

    def __init__(self, metric: str, settings: EncoderSettings, kind: str):
        self.metric = metric
        self.settings = settings
        self.device = choose_device(settings.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        self.image_processor: Any = None
        if settings.model == "tiny":
            model, self.tokenizer, self.image_processor = tiny_encoders.build(kind)
        else:
            model, self.tokenizer = self._open(kind)
        self.model: Any = model.to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)

    def _open(self, kind: str) -> tuple[nn.Module, Any]:
        name = self.settings.model
        try:
            source = hub.resolve(name)
            model, found = AutoModel.from_pretrained(source, dtype=self.dtype, output_loading_info=True)
            if kind == "clip" and not hasattr(model, "get_image_features"):
                raise ScoreError(
                    f"{self.metric}: {name} has no common embedding space of images and texts.",
                    "Give a CLIP or SigLIP model.",
                )
            tokenizer = AutoTokenizer.from_pretrained(source)
            if kind == "clip":
                self.image_processor = AutoImageProcessor.from_pretrained(source, backend="pil")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise not_opened(self.metric, self.settings, error) from error
        missing = sorted(key for key in found["missing_keys"] if not key.startswith(self.unused))
        if missing:
            raise ScoreError(
                f"{self.metric}: {name} lacks {len(missing)} weights, such as {missing[0]}.",
                "Download the checkpoint again, or choose one of the right kind.",
            )
        return model, tokenizer

    @cached_property
    def facts(self) -> dict[str, str]:
        """For the signature: the checkpoint with a hash of its weights, and the precision."""
        digest = hashlib.blake2b(digest_size=4)
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        folder = Path(self.settings.model)
        name = folder.resolve().name if folder.is_dir() else self.settings.model
        return {"model": f"{name}@{digest.hexdigest()}", "dtype": self.settings.dtype}

    @cached_property
    def longest(self) -> int:
        config = getattr(self.model.config, "text_config", self.model.config)
        # RoBERTa's positions begin after the padding index
        offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        positions = int(getattr(config, "max_position_embeddings", _LONGEST)) - offset
        return min(int(self.tokenizer.model_max_length), positions)

    def tokenise(self, texts: Sequence[str], padding: bool | str = True) -> dict[str, torch.Tensor]:
        rows = self.tokenizer(
            list(texts), padding=padding, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        return {name: rows[name].to(self.device) for name in ("input_ids", "attention_mask") if name in rows}

    def batches(
        self, items: Sequence[Item], what: str, size: Callable[[Item], int], bars: Bars
    ) -> Iterator[list[Item]]:
        """Items of similar size together, so that little is padded."""
        items = sorted(items, key=size)
        step = self.settings.batch_size
        with bars(f"{self.metric}: {what}") as progress, torch.inference_mode():
            for begin in range(0, len(items), step):
                yield items[begin : begin + step]
                progress(min(begin + step, len(items)), len(items))


class ClipEncoder(Encoder):
    """Images and texts as unit vectors of one space (CLIP, SigLIP)."""

    def __init__(self, metric: str, settings: EncoderSettings):
        super().__init__(metric, settings, "clip")
        self._texts: dict[str, Vectors] = {}
        self._images: dict[str, Vectors] = {}
        # CLIP reads the vector at the end token, so padding may be trimmed; SigLIP reads the last vector
        self._padding: bool | str = "max_length" if "siglip" in self.model.config.model_type else True

    def texts(self, texts: Sequence[str], bars: Bars = silent) -> Vectors:
        """float32 [len(texts), D]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for batch in self.batches(new, "texts", len, bars):
            vectors = self.model.get_text_features(**self.tokenise(batch, self._padding)).pooler_output
            self._texts.update(zip(batch, _unit(vectors), strict=True))
        return np.stack([self._texts[text] for text in texts])

    def images(self, paths: Sequence[str], bars: Bars = silent) -> Vectors:
        """float32 [len(paths), D].

        Raises:
            ScoreError: images that can't be opened.
        """
        new = [path for path in dict.fromkeys(paths) if path not in self._images]
        problems: list[str] = []
        for batch in self.batches(new, "images", lambda path: 0, bars):
            pictures = {}
            for path in batch:
                try:
                    pictures[path] = open_image(path)
                except ImageProblem as problem:
                    problems.append(f"{path} ({problem.reason})")
            if pictures and not problems:
                pixels = self.image_processor(list(pictures.values()), return_tensors="pt")["pixel_values"]
                found = self.model.get_image_features(pixel_values=pixels.to(self.device, self.dtype))
                self._images.update(zip(pictures, _unit(found.pooler_output), strict=True))
        if problems:
            raise ScoreError(
                f"{self.metric}: {len(problems)} images can't be opened: {some(problems, 3)}.",
                "Replace them, or remove these images from predictions and references.",
            )
        return np.stack([self._images[path] for path in paths])


class SentenceEncoder(Encoder):
    """Texts as unit vectors: the mean of the last layer's token vectors, as sentence-transformers pools them."""

    def __init__(self, metric: str, settings: EncoderSettings):
        super().__init__(metric, settings, "bert")
        self._texts: dict[str, Vectors] = {}

    def texts(self, texts: Sequence[str], bars: Bars = silent) -> Vectors:
        """float32 [len(texts), D]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for batch in self.batches(new, "texts", len, bars):
            rows = self.tokenise(batch)
            hidden = self.model(**rows).last_hidden_state
            mask = rows["attention_mask"][:, :, None].to(hidden.dtype)
            self._texts.update(zip(batch, _unit((hidden * mask).sum(1) / mask.sum(1)), strict=True))
        return np.stack([self._texts[text] for text in texts])


class TokenEncoder(Encoder):
    """Texts as one unit vector a token, of a chosen layer.

    Args:
        layer: 1 is the first; the layers after it are taken off where they can be.
    """

    def __init__(self, metric: str, settings: EncoderSettings, layer: int):
        super().__init__(metric, settings, "roberta")
        layers = self.model.config.num_hidden_layers
        if layer > layers:
            raise ScoreError(f"{metric}: {settings.model} has {layers} layers, not {layer}.", "Choose a lower layer.")
        self.layer = layer
        self._is_cut = False
        blocks = getattr(getattr(self.model, "encoder", None), "layer", None)
        if isinstance(blocks, nn.ModuleList):
            self.facts  # noqa: B018 - the hash of the whole checkpoint, before it is cut
            del blocks[layer:]
            self._is_cut = True
        self._texts: dict[str, tuple[NDArray[np.int64], Vectors]] = {}
        self._bytes = 0
        # GPT-2's tokens know whether a space came before; the published scorer puts one in front
        self._prefix = " " if type(self.tokenizer).__name__.startswith(("Roberta", "GPT2")) else ""
        #: The tokens round a text.
        self.special = frozenset((self.tokenizer.cls_token_id, self.tokenizer.sep_token_id))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's tokens, special ones included."""
        plain = [self._prefix + text.strip() if text.strip() else "" for text in texts]
        found = self.tokenizer(plain, truncation=True, max_length=self.longest)["input_ids"]
        return [list(map(int, row)) for row in found]

    def tokens(self, texts: Sequence[str], bars: Bars = silent) -> list[tuple[NDArray[np.int64], Vectors]]:
        """For each text its token ids [T] and unit vectors float32 [T, D]."""
        known = {text: self._texts[text] for text in texts if text in self._texts}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for batch in self.batches(new, "texts", len, bars):
            rows = self.ids(batch)
            padded = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self.device)
            wanted = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
            hidden = self._layer(wanted).float()
            unit = torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy()
            for text, ids, vectors in zip(batch, rows, unit, strict=True):
                known[text] = np.array(ids, np.int64), vectors[: len(ids)].copy()
                if self._bytes < _REMEMBERED_BYTES:
                    self._texts[text] = known[text]
                    self._bytes += vectors.nbytes
        return [known[text] for text in texts]

    def _layer(self, rows: dict[str, torch.Tensor]) -> torch.Tensor:
        if self._is_cut:
            return self.model(**rows).last_hidden_state  # type: ignore[no-any-return]
        return self.model(**rows, output_hidden_states=True).hidden_states[self.layer]  # type: ignore[no-any-return]


def _unit(vectors: torch.Tensor) -> Vectors:
    found: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return found


# every scorer makes its own metrics; a model is opened once


@lru_cache(maxsize=2)
def clip(metric: str, settings: EncoderSettings) -> ClipEncoder:
    return ClipEncoder(metric, settings)


@lru_cache(maxsize=2)
def sentences(metric: str, settings: EncoderSettings) -> SentenceEncoder:
    return SentenceEncoder(metric, settings)


@lru_cache(maxsize=2)
def tokens(metric: str, settings: EncoderSettings, layer: int) -> TokenEncoder:
    return TokenEncoder(metric, settings, layer)
