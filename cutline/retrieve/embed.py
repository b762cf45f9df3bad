"""Vectors of many images, kept on disk as they are made, so that a job that was killed goes on.

<folder>/00000000.npz, 00000001.npz, …   one file a chunk, put there whole: vectors, and what is wrong with each image
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
    """Samples that go through the tower together; always the same, so that a resumed job gets the same bits."""
    size = CHUNK.get(family.device.type, 32)
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def opened(family: RetrievalFamily, samples: Sequence[Sample]) -> tuple[Batch | None, dict[int, str]]:
    """Pixels of the images that can be opened (None without any), and what is wrong with the others, by place."""
    pictures: list[Image] = []
    wrong: dict[int, str] = {}
    for place, sample in enumerate(samples):
        try:
            pictures.append(open_image(sample.image))
        except ImageProblem as problem:
            wrong[place] = problem.problem
    return (family.pixels(pictures) if pictures else None), wrong


def embed_images(
    family: RetrievalFamily, samples: Sequence[Sample], folder: Path, progress: Progress | None = None
) -> tuple[Tensor, dict[int, str]]:
    """Unit vectors of images, each chunk read from the folder where it is there already.

    Args:
        folder: of this model and these samples, and of nothing else.

    Returns:
        float32 [N, E] or [N, Q, E], zeros where an image can't be opened, and by place what is wrong with those.
    """
    found: list[np.ndarray] = []
    wrong: dict[int, str] = {}
    for start, vectors, errors in embedded(family, samples, folder):
        found.append(vectors)
        wrong |= {start + place: str(text) for place, text in enumerate(errors) if text}
        if progress:
            progress(start + len(vectors), len(samples))
    shape = next((one.shape[1:] for one in found if one.ndim > 1), (0,))
    found = [one if one.ndim > 1 else np.zeros((len(one), *shape), np.float32) for one in found]
    return torch.from_numpy(np.concatenate(found)), wrong


def embedded(
    family: RetrievalFamily, samples: Sequence[Sample], folder: Path
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Chunk by chunk: the first one's place, vectors (one-dimensional where no image could be opened), errors or ""."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(enumerate(chunks(samples, family)))
    todo = [part for part in parts if not (folder / f"{part[0]:08}.npz").is_file()]
    made = prefetch(lambda part: opened(family, part[1]), todo)
    start = 0
    for number, chunk in parts:
        path = folder / f"{number:08}.npz"
        if not path.is_file():
            _, (pixels, wrong) = next(made)
            vectors = np.zeros(len(chunk), np.float32)
            if pixels is not None:
                with torch.inference_mode():
                    right = family.embed_images(pixels).float().cpu().numpy()
                vectors = np.zeros((len(chunk), *right.shape[1:]), np.float32)
                vectors[[place for place in range(len(chunk)) if place not in wrong]] = right
            data = io.BytesIO()
            np.savez(data, vectors=vectors, errors=np.array([wrong.get(place, "") for place in range(len(chunk))]))
            write_atomically(path, data.getvalue())
        with np.load(path) as kept:
            yield start, kept["vectors"], kept["errors"]
        start += len(chunk)


def embed_texts(family: RetrievalFamily, texts: Sequence[str], batch_size: int) -> Tensor:
    """Unit vectors float32 [M, E] of texts; those of like length go together, which wastes no padding."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: Tensor | None = None
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        with torch.inference_mode():
            made = family.embed_texts(family.encode_texts([texts[place] for place in places])).float().cpu()
        found = torch.empty(len(texts), made.shape[1]) if found is None else found
        found[places] = made
    return torch.zeros(0, 0) if found is None else found


def tokens(family: RetrievalFamily, texts: Sequence[str], batch_size: int = 1024) -> list[tuple[int, ...]]:
    """What the model reads of each text: its token ids without padding."""
    found: list[tuple[int, ...]] = []
    for start in range(0, len(texts), batch_size):
        batch = family.encode_texts(texts[start : start + batch_size])
        ids = batch["input_ids"].tolist()
        mask = batch.get("attention_mask")
        lengths = [len(row) for row in ids] if mask is None else mask.sum(1).tolist()
        found += [tuple(row[:length]) for row, length in zip(ids, lengths, strict=True)]
    return found
