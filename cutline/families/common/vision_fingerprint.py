"""The fingerprint of a vision tower: it names the cache of its features."""

from __future__ import annotations

import hashlib
import inspect
import json

import torch
import transformers

from cutline.families.base import Family


def vision_fingerprint(family: Family) -> str:
    """A hash that changes with anything that changes features: weights, buffers, image processing, dtype, code."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(family.image_processor.to_dict(), sort_keys=True, default=str).encode())
    kind = type(family)
    code = "".join(inspect.getsource(method) for method in (kind.encode_images, kind.pixels))
    digest.update(family.policy.model_dump_json().encode())
    digest.update(f"{family.name()} {family.dtype} transformers {transformers.__version__} {code}".encode())
    for name, tensor in family.vision_tensors():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
