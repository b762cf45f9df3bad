"""Embeddings of many images, saved to disk chunk by chunk, so that an interrupted job resumes.

<folder>/00000000.npz, 00000001.npz, …   one file per chunk, written atomically: vectors, and each image's error
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from cutline.core.files import write_atomically
from cutline.core.progress import Progress
from cutline.core.records import Sample
from cutline.core.threads import prefetch
from cutline.families.base import Batch
from cutline.families.common.feature_cache import CHUNK
from cutline.families.common.retrieval import RetrievalFamily
from cutline.images.open import ImageProblem, open_image


def chunks(samples: Sequence[Sample], family: RetrievalFamily) -> list[Sequence[Sample]]:
    """Samples that go through the model together; the same in every call, so that a resumed job gets the same bits."""
    size = CHUNK.get(family.device.type, 32)
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def opened(family: RetrievalFamily, samples: Sequence[Sample]) -> tuple[Batch | None, dict[int, str]]:
    """Pixels of the images that can be opened (None if there are none), and index → error for the others."""
    pictures: list[Image] = []
    errors: dict[int, str] = {}
    for index, sample in enumerate(samples):
        try:
            pictures.append(open_image(sample.image))
        except ImageProblem as problem:
            errors[index] = problem.problem
    return (family.pixels(pictures) if pictures else None), errors


def embed_images(
    family: RetrievalFamily, samples: Sequence[Sample], folder: Path, progress: Progress | None = None
) -> tuple[Tensor, dict[int, str]]:
    """Unit vectors of images; chunks that the folder holds already are read from it.

    Args:
        folder: holds the chunks of this model and these samples only.

    Returns:
        float32 [N, E] or [N, Q, E], zeros where an image can't be opened, and index → error for those images.
    """
    parts: list[np.ndarray] = []
    errors: dict[int, str] = {}
    for start, vectors, messages in embedded(family, samples, folder):
        parts.append(vectors)
        errors |= {start + index: str(message) for index, message in enumerate(messages) if message}
        if progress:
            progress(start + len(vectors), len(samples))
    shape = next((part.shape[1:] for part in parts if part.ndim > 1), (0,))
    parts = [part if part.ndim > 1 else np.zeros((len(part), *shape), np.float32) for part in parts]
    return torch.from_numpy(np.concatenate(parts)), errors


def embedded(
    family: RetrievalFamily, samples: Sequence[Sample], folder: Path
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields, for each chunk, the index of its first sample, its vectors, and its errors ("" where there is none).

    Vectors are one-dimensional if no image of the chunk can be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(enumerate(chunks(samples, family)))
    missing = [part for part in parts if not (folder / f"{part[0]:08}.npz").is_file()]
    prepared = prefetch(lambda part: opened(family, part[1]), missing)
    start = 0
    for number, chunk in parts:
        path = folder / f"{number:08}.npz"
        if not path.is_file():
            _, (pixels, errors) = next(prepared)
            vectors = np.zeros(len(chunk), np.float32)
            if pixels is not None:
                with torch.inference_mode():
                    readable = family.embed_images(pixels).float().cpu().numpy()
                vectors = np.zeros((len(chunk), *readable.shape[1:]), np.float32)
                vectors[[index for index in range(len(chunk)) if index not in errors]] = readable
            data = io.BytesIO()
            np.savez(data, vectors=vectors, errors=np.array([errors.get(index, "") for index in range(len(chunk))]))
            write_atomically(path, data.getvalue())
        with np.load(path) as arrays:
            yield start, arrays["vectors"], arrays["errors"]
        start += len(chunk)


def embed_texts(family: RetrievalFamily, texts: Sequence[str], batch_size: int) -> Tensor:
    """Unit vectors float32 [M, E] of texts; texts of similar length share a batch, which saves padding."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors: Tensor | None = None
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        with torch.inference_mode():
            batch = family.embed_texts(family.encode_texts([texts[index] for index in indices])).float().cpu()
        vectors = torch.empty(len(texts), batch.shape[1]) if vectors is None else vectors
        vectors[indices] = batch
    return torch.zeros(0, 0) if vectors is None else vectors


def tokens(family: RetrievalFamily, texts: Sequence[str], batch_size: int = 1024) -> list[tuple[int, ...]]:
    """The token ids that the model reads of each text, without padding."""
    token_ids: list[tuple[int, ...]] = []
    for start in range(0, len(texts), batch_size):
        batch = family.encode_texts(texts[start : start + batch_size])
        ids = batch["input_ids"].tolist()
        mask = batch.get("attention_mask")
        lengths = [len(row) for row in ids] if mask is None else mask.sum(1).tolist()
        token_ids += [tuple(row[:length]) for row, length in zip(ids, lengths, strict=True)]
    return token_ids
