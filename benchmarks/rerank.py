"""BLIP's matching of images and texts at the size of BLIP-base: the published procedure and ours, in one run.

    python benchmarks/rerank.py TEXTS.txt [--dtype bfloat16] [--images 2] [--texts 640] [--pairs 128]

TEXTS.txt has a caption a line. Weights are random and images are random features of 577 positions, as the tower gives
them for 384 px: the time depends on neither. The published procedure is written below from its description: for each
query 128 candidates, texts padded to 35 tokens, the image's features repeated for each. On Flickr30K's 1K test images
it scores 768,000 pairs, 640,000 of them distinct, 640 texts an image, which is what ours does at once. One thread.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessorPil

from cutline.families.blip import BlipMatcher
from cutline.families.common.blip_texts import clean
from cutline.families.common.tiny import wordpiece

#: Pairs of both directions on Flickr30K's 1K test images with 128 candidates a query, and distinct ones.
PUBLISHED_PAIRS, DISTINCT_PAIRS = 768_000, 640_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts_file", type=Path)
    arguments.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="ours only")
    arguments.add_argument("--images", type=int, default=2)
    arguments.add_argument("--texts", type=int, default=640, help="an image, for ours")
    arguments.add_argument("--pairs", type=int, default=128, help="an image, for the published procedure")
    given = arguments.parse_args()
    texts = given.texts_file.read_text(encoding="utf-8").splitlines()[: given.texts]
    torch.manual_seed(1)
    images = [torch.nn.functional.layer_norm(torch.randn(577, 768), (768,)) for _ in range(given.images)]
    found, ours = run_ours(texts, images, getattr(torch, given.dtype))
    reference, theirs = run_published(texts[: given.pairs], texts, images)
    apart = max(float((a[: given.pairs] - b).abs().max()) for a, b in zip(found, reference, strict=True))
    print(f"largest difference of scores: {apart:.1e}, at a deviation of {float(torch.cat(reference).std()):.2f}")
    whole = theirs * PUBLISHED_PAIRS / (ours * DISTINCT_PAIRS)
    print(f"{theirs / ours:.1f} times less a pair, {whole:.1f} times less a whole evaluation: distinct pairs once")


def run_ours(texts: list[str], images: list[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], float]:
    """Scores of each image with all texts, and CPU seconds a pair."""
    family = matcher(texts).to(dtype)
    tokens = sum(map(len, family.match_ids(texts))) / len(texts)
    matching, prepared = timed(lambda: family.matching(texts))
    everything = torch.arange(len(texts))
    found, seconds = timed(lambda: [matching.scores({"features": one[None].to(dtype)}, everything) for one in images])
    pair, text = seconds / (len(texts) * len(images)), prepared / len(texts)
    print(f"{len(texts)} texts of {tokens:.1f} tokens on average, {len(images)} images")
    print(f"ours, {dtype}: {1000 * pair:.2f} ms a pair; {1000 * text:.2f} ms to prepare a text; {memory():.2f} GiB")
    return found, pair


def run_published(texts: list[str], known: list[str], images: list[Tensor]) -> tuple[list[Tensor], float]:
    """Scores of each image with the texts, and CPU seconds a pair."""
    family = matcher(known)
    cleaned = [clean(text, 30) for text in texts]
    batch = family.tokenizer(cleaned, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    found, seconds = timed(lambda: [published(family, one, batch) for one in images])
    pair = seconds / (len(texts) * len(images))
    print(f"published, float32: {1000 * pair:.2f} ms a pair; {memory():.2f} GiB")
    return found, pair


def matcher(known: list[str]) -> BlipMatcher:
    """The same for the same texts, which its vocabulary is made from."""
    torch.manual_seed(0)
    tokenizer = BertTokenizer(vocab=wordpiece(known, 8000), do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]}, replace_extra_special_tokens=False)
    config = BlipConfig(
        text_config={"num_attention_heads": 12, "bos_token_id": tokenizer.bos_token_id},
        vision_config={"num_hidden_layers": 1},  # the features are given
    )
    model = BlipForImageTextRetrieval(config)
    with torch.no_grad():
        for name, parameter in model.text_encoder.named_parameters():
            if parameter.ndim == 2:  # so that scores depend on image and text
                parameter.normal_(std=0.06 if "query" in name or "key" in name else 0.03)
        model.itm_head.weight.normal_(std=0.05)
    return BlipMatcher(model, BlipImageProcessorPil(), tokenizer).eval()


@torch.no_grad()
def published(family: BlipMatcher, image: Tensor, batch: Any) -> Tensor:
    """One query image and its candidate texts."""
    texts = len(batch["input_ids"])
    ids = batch["input_ids"].clone()
    ids[:, 0] = family.match_start_id
    hidden = family.model.text_encoder(
        input_ids=ids,
        attention_mask=batch["attention_mask"],
        encoder_hidden_states=image.repeat(texts, 1, 1),
        encoder_attention_mask=torch.ones(texts, len(image), dtype=torch.long),
    ).last_hidden_state
    return family.model.itm_head(hidden[:, 0])[:, 1]  # type: ignore[no-any-return]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """A call's answer and its CPU seconds."""
    start = time.process_time()
    answer = call()
    return answer, time.process_time() - start


def memory() -> float:
    """GiB at the most until now; what comes later can only be more."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
