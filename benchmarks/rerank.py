"""Compares BLIP's matching of images and texts at the size of BLIP-base: the published procedure and ours, in one run.

    python benchmarks/rerank.py TEXTS.txt [--dtype bfloat16] [--images 2] [--texts 640] [--pairs 128]

TEXTS.txt has one caption per line. Weights are random, and images are random features of 577 positions, as the tower
returns for 384 px; the time depends on neither. The published procedure is written below from its description: 128
candidates per query, texts padded to 35 tokens, the image's features repeated for each. On Flickr30K's 1K test images
it scores 768,000 pairs, 640,000 of them distinct: 640 texts per image, which ours computes at once. One thread.

    python benchmarks/rerank.py TEXTS.txt --gallery 16 --k 8 [--dtype bfloat16]

runs a complete evaluation in both directions with both procedures, from the images' features to recall: 16 images with
five captions each, 8 candidates per query. In bfloat16 ours is also verified, as by ``--verify`` of ``cutline retrieve
evaluate``, and the first stage is in float32. The cost of encoding an image is measured separately; both need it.
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

from cutline.core.records import Sample
from cutline.families.blip import BlipMatcher
from cutline.families.common.blip_texts import clean
from cutline.families.common.tiny import wordpiece
from cutline.retrieve.embed import embed_texts, tokens
from cutline.retrieve.gallery import gather
from cutline.retrieve.recall import recalls
from cutline.retrieve.rerank import rerank
from cutline.retrieve.stages import first_stage
from cutline.retrieve.verify import verify

#: Pairs of both directions on Flickr30K's 1K test images with 128 candidates per query, and distinct pairs.
PUBLISHED_PAIRS, DISTINCT_PAIRS = 768_000, 640_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts_file", type=Path)
    arguments.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="ours only")
    arguments.add_argument("--images", type=int, default=2)
    arguments.add_argument("--texts", type=int, default=640, help="texts per image, for ours")
    arguments.add_argument("--pairs", type=int, default=128, help="pairs per image, for the published procedure")
    arguments.add_argument("--gallery", type=int, default=0, help="images of a complete evaluation, 5 captions each")
    arguments.add_argument("--k", type=int, default=8, help="candidates per query in a complete evaluation")
    given = arguments.parse_args()
    if given.gallery:
        captions = given.texts_file.read_text(encoding="utf-8").splitlines()[: 5 * given.gallery]
        evaluate_whole(captions, given.gallery, given.k, getattr(torch, given.dtype))
        return
    texts = given.texts_file.read_text(encoding="utf-8").splitlines()[: given.texts]
    torch.manual_seed(1)
    images = [torch.nn.functional.layer_norm(torch.randn(577, 768), (768,)) for _ in range(given.images)]
    found, ours = run_ours(texts, images, getattr(torch, given.dtype))
    reference, theirs = run_published(texts[: given.pairs], texts, images)
    apart = max(float((a[: given.pairs] - b).abs().max()) for a, b in zip(found, reference, strict=True))
    print(f"largest difference of scores: {apart:.1e}, at a deviation of {float(torch.cat(reference).std()):.2f}")
    whole = theirs * PUBLISHED_PAIRS / (ours * DISTINCT_PAIRS)
    print(f"{theirs / ours:.1f} times less a pair, {whole:.1f} times less a whole evaluation: distinct pairs once")


def evaluate_whole(captions: list[str], many: int, k: int, dtype: torch.dtype) -> None:
    """Both directions, ours first, because later work cannot lower the peak memory."""
    samples = [Sample(id=str(n), image=str(n), captions=tuple(captions[5 * n : 5 * n + 5])) for n in range(many)]
    torch.manual_seed(1)
    features = torch.nn.functional.layer_norm(torch.randn(many, 577, 768), (768,))
    exact = matcher(captions)
    family = exact if dtype == torch.float32 else matcher(captions).to(dtype)
    (recall_ours, notes), ours = timed(lambda: whole_ours(family, exact, samples, features, k))
    ours_gib = memory()
    print(f"ours, {dtype}: {ours:.1f} CPU s, {notes}; {ours_gib:.2f} GiB", flush=True)
    recall_theirs, theirs = timed(lambda: whole_published(exact, captions, features, k))
    print(f"published, float32: {theirs:.1f} CPU s, {6 * many * k} pairs; {memory():.2f} GiB")
    tower = BlipForImageTextRetrieval(BlipConfig(vision_config={"image_size": 384})).vision_model.eval()
    with torch.inference_mode():
        _, seeing = timed(lambda: tower(torch.zeros(1, 3, 384, 384)))
    print(f"{theirs / ours:.1f} times less; the tower takes {seeing:.1f} CPU s an image besides")
    for name, value in recall_theirs.items():
        print(f"{name}: {recall_ours[name]:.4f}, published {value:.4f}")


def whole_ours(
    family: BlipMatcher, exact: BlipMatcher, samples: list[Sample], features: Tensor, k: int
) -> tuple[dict[str, float], str]:
    """Recall, and the number of computed pairs."""
    gallery = gather(samples, lambda texts: tokens(exact, texts))
    with torch.inference_mode():
        images = exact.embed_images({"features": features})
    texts = embed_texts(exact, gallery.texts, 256)
    stages = first_stage(gallery, images, texts, exact.similarity, k)
    of_images, of_texts = stages.texts_of_images, stages.images_of_texts
    stored = features.to(family.dtype)
    pairs = sum(
        len(scores)
        for _, scores in rerank(
            family.matching(gallery.texts), lambda image: {"features": stored[[image]]}, of_images, of_texts
        )
    )
    notes = f"{pairs} distinct pairs"
    if family.dtype != torch.float32:
        found = verify(
            exact.matching(gallery.texts), lambda image: {"features": features[[image]]}, gallery, of_images, of_texts
        )
        notes += f", {found.pairs} of them in float32, too (off by up to {found.max_error:.2f})"
    return recalls(*(direction.ranks(matched=True)[0] for direction in stages.directions)), notes


@torch.no_grad()
def whole_published(family: BlipMatcher, captions: list[str], features: Tensor, k: int) -> dict[str, float]:
    """Every caption is a candidate and a query of its own; items that are not candidates get -100."""
    cleaned = [clean(text, 30) for text in captions]
    batch = family.tokenizer(cleaned, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    texts = family.embed_texts({name: batch[name] for name in ("input_ids", "attention_mask")})
    cosines = family.embed_images({"features": features}) @ texts.T
    by_image, by_text = torch.full_like(cosines, -100.0), torch.full_like(cosines.T, -100.0)
    for n, row in enumerate(cosines):
        near = row.topk(k)
        rows = {name: batch[name][near.indices] for name in ("input_ids", "attention_mask")}
        by_image[n, near.indices] = near.values + published(family, features[n], rows)
    for n, column in enumerate(cosines.T):
        near = column.topk(k)
        rows = {name: batch[name][[n] * k] for name in ("input_ids", "attention_mask")}
        by_text[n, near.indices] = near.values + published(family, features[near.indices], rows)
    image_of = torch.arange(len(captions)) // 5
    found = {}
    for name, table, right in (
        ("tr", by_image, image_of[None] == torch.arange(len(features))[:, None]),
        ("ir", by_text, image_of[:, None] == torch.arange(len(features))[None]),
    ):
        best = table.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        ranks = 1 + (table > best).sum(1)
        for cut in (1, 5, 10):
            found[f"{name}_recall_at_{cut}"] = float(((ranks <= cut) & (best[:, 0] > -100)).float().mean())
    return found


def run_ours(texts: list[str], images: list[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], float]:
    """Scores of each image with all texts, and CPU seconds per pair."""
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
    """Scores of each image with the texts, and CPU seconds per pair."""
    family = matcher(known)
    cleaned = [clean(text, 30) for text in texts]
    batch = family.tokenizer(cleaned, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    found, seconds = timed(lambda: [published(family, one, batch) for one in images])
    pair = seconds / (len(texts) * len(images))
    print(f"published, float32: {1000 * pair:.2f} ms a pair; {memory():.2f} GiB")
    return found, pair


def matcher(known: list[str]) -> BlipMatcher:
    """A model that is the same for the same texts, from which its vocabulary is made."""
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
    """One query image [P, D] with its candidate texts, or a query text repeated for its candidate images [K, P, D]."""
    texts = len(batch["input_ids"])
    images = image if image.ndim == 3 else image.repeat(texts, 1, 1)
    ids = batch["input_ids"].clone()
    ids[:, 0] = family.match_start_id
    hidden = family.model.text_encoder(
        input_ids=ids,
        attention_mask=batch["attention_mask"],
        encoder_hidden_states=images,
        encoder_attention_mask=torch.ones(images.shape[:2], dtype=torch.long),
    ).last_hidden_state
    return family.model.itm_head(hidden[:, 0])[:, 1]  # type: ignore[no-any-return]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Returns a call's result and its CPU seconds."""
    start = time.process_time()
    answer = call()
    return answer, time.process_time() - start


def memory() -> float:
    """Peak memory so far in GiB; it can only rise."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
