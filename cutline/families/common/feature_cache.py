"""The features of a frozen vision tower for each image, computed once and kept on disk.

    <cache>/features/<fingerprint>-<dtype>/
      features.bin     the tensors, one after another; read through a memory map
      index.jsonl      one line an image: sha256 of its file (followed by "-mirrored" for its mirror image), and each
                       tensor's position, dtype and shape

The fingerprint covers the vision part's weights, its image processing and its dtype, and an image is known by the hash
of its bytes, so an entry can't be stale: whatever changes, changes its name. Every run that uses the same tower on the
same images finds the entries again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cutline.core import jsonl
from cutline.core.cache import cache_root
from cutline.core.files import locked
from cutline.core.progress import Progress
from cutline.core.records import Sample
from cutline.core.threads import prefetch
from cutline.families.base import Batch, Family
from cutline.families.common.vision_fingerprint import vision_fingerprint
from cutline.families.weights.dtypes import dtype_name
from cutline.images.open import MIRRORED, image_hash, open_sample

#: Images that go through the tower together. Always the same images, also after a kill, so that a resumed run gets
#: the same bits: a convolution's last digits depend on the size of the batch. On a CPU eight images of 224 px stay in
#: the processor's cache; 32 take up to twice the time an image.
CHUNK = {"cpu": 8, "cuda": 64, "mps": 32}


class FeatureCache:
    """The features that one vision tower gives, by image.

    Args:
        family: whose ``encode_images`` is kept.
        root: folder of caches; ``cache_root()`` by default.
        dtype: floating-point features are stored in it; float16 takes half the room of float32 and costs about
            0.05 % of precision.
    """

    def __init__(self, family: Family, root: Path | None = None, dtype: torch.dtype = torch.float16):
        self.family = family
        self.dtype = dtype
        name = f"{vision_fingerprint(family)}-{dtype_name(dtype)}"
        self.folder = (root or cache_root()) / "features" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._index: dict[str, dict[str, Any]] = {}
        self._hashes: dict[str, str] = {}
        self._map: np.memmap[Any, np.dtype[np.uint8]] | None = None
        self._read_index()

    @property
    def _data(self) -> Path:
        return self.folder / "features.bin"

    def _read_index(self) -> None:
        path = self.folder / "index.jsonl"
        size = self._data.stat().st_size if self._data.exists() else 0
        rows = jsonl.read(path) if path.exists() else iter(())
        # an entry whose bytes never reached the disk (a power cut) doesn't count
        self._index = {row["image"]: row["tensors"] for row in rows if row["end"] <= size}
        self._map = np.memmap(self._data, np.uint8, "r") if size else None

    def __len__(self) -> int:
        return len(self._index)

    def __getstate__(self) -> dict[str, Any]:
        # for a data loader's worker, which only reads: without the family, and without the bytes of the memory map
        return {name: value for name, value in self.__dict__.items() if name != "family"} | {"_map": None, "_index": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read_index()

    def get(self, samples: Sequence[Sample]) -> list[Batch]:
        """The features of each sample, from disk; ``fill`` must have computed them before."""
        return [self._one(self._index[self._hash(sample)]) for sample in samples]

    def _one(self, tensors: dict[str, dict[str, Any]]) -> Batch:
        assert self._map is not None
        features = {}
        for name, entry in tensors.items():
            dtype: torch.dtype = getattr(torch, entry["dtype"])
            raw = self._map[entry["offset"] : entry["offset"] + entry["bytes"]]
            features[name] = torch.from_numpy(np.array(raw)).view(dtype).reshape(entry["shape"])
        return features

    def _hash(self, sample: Sample) -> str:
        # from the file's bytes and not from the dataset's table: an image may have been changed since
        if sample.image not in self._hashes:
            self._hashes[sample.image] = image_hash(sample.image)
        return self._hashes[sample.image] + ("-mirrored" if sample.extra.get(MIRRORED) else "")

    def fill(self, samples: Sequence[Sample], progress: Progress | None = None) -> int:
        """Computes and stores missing features; can be killed at any moment and resumes from there.

        Returns:
            How many images were encoded now.
        """
        with locked(self.folder / ".lock"):  # a second process waits, then reads what the first has written
            jsonl.cut_torn_tail(self.folder / "index.jsonl")
            self._read_index()
            unique = list({self._hash(sample): sample for sample in samples}.values())
            size = CHUNK.get(self.family.device.type, 32)
            chunks = [unique[start : start + size] for start in range(0, len(unique), size)]
            todo = [chunk for chunk in chunks if any(self._hash(sample) not in self._index for sample in chunk)]
            done = len(unique) - sum(map(len, todo))
            encoded = 0
            entries = [entry for tensors in self._index.values() for entry in tensors.values()]
            end = max((entry["offset"] + entry["bytes"] for entry in entries), default=0)
            with open(self._data, "ab") as data, jsonl.Appender(self.folder / "index.jsonl") as index:
                data.truncate(end)
                data.seek(0, os.SEEK_END)
                for chunk, pixels in prefetch(self._pixels, todo):
                    with torch.inference_mode():
                        features = self.family.encode_images(pixels)
                    rows = []
                    for sample, tensors in zip(chunk, self.family.split_features(features), strict=True):
                        if self._hash(sample) in self._index:
                            continue
                        written = {name: self._append(data, tensor) for name, tensor in tensors.items()}
                        rows.append({"image": self._hash(sample), "tensors": written, "end": data.tell()})
                        encoded += 1
                    data.flush()
                    index.write(rows)
                    done += len(chunk)
                    if progress:
                        progress(done, len(unique))
            self._read_index()
        return encoded

    def _pixels(self, chunk: Sequence[Sample]) -> Batch:
        return self.family.pixels([open_sample(sample) for sample in chunk])

    def _append(self, data: Any, tensor: Tensor) -> dict[str, Any]:
        tensor = tensor.detach().cpu()
        tensor = (tensor.to(self.dtype) if tensor.is_floating_point() else tensor).contiguous()
        raw = tensor.flatten().view(torch.uint8).numpy().tobytes()
        entry = {
            "offset": data.tell(),
            "bytes": len(raw),
            "dtype": dtype_name(tensor.dtype),
            "shape": list(tensor.shape),
        }
        data.write(raw)
        return entry
