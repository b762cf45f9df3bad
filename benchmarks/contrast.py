"""Measures the peak memory of one training step for retrieval by batch size, with and without cached gradients.

    python benchmarks/contrast.py [--width 192] [--layers 4] [--size 160] [--chunk 8] [--itm] [--batches 16 64 256]

The model is a BLIP matcher with random weights; the images are noise, with one caption each. Memory and time depend on
neither. Each batch runs in a process of its own, on one CPU thread. "peak" is the process's highest memory use, minus
what it used with the model and the batch's pixels before the step. ``--itm`` adds matching with hard negatives.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--width", type=int, default=192)
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--size", type=int, default=160, help="side of the images, in px")
    arguments.add_argument("--chunk", type=int, default=8)
    arguments.add_argument("--itm", action="store_true")
    arguments.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    arguments.add_argument("--whole", type=int, nargs="*", default=[16, 64], help="batch sizes without caching")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(step(given.width, given.layers, given.size, *json.loads(given.one), itm=given.itm)))
        return
    print(f"width {given.width}, {given.layers} + {given.layers} layers, {given.size} px{', ITM' if given.itm else ''}")
    for batch, chunk in [*((batch, given.chunk) for batch in given.batches), *((batch, None) for batch in given.whole)]:
        own = [sys.executable, __file__, *sys.argv[1:], "--one", json.dumps([batch, chunk])]
        done = subprocess.run(own, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        found = json.loads(done)
        print(
            f"batch {batch:4d}, {f'{chunk} at a time' if chunk else 'whole':14s}  loss {found['loss']:.6f}  "
            f"peak {found['peak'] / 2**20:6.0f} MiB  CPU {found['seconds']:5.1f} s",
            flush=True,
        )


def step(width: int, layers: int, size: int, count: int, chunk: int | None, *, itm: bool) -> dict[str, float]:
    """One step over ``count`` images: its loss, bytes at the peak, CPU seconds."""
    import torch
    from transformers import BlipConfig, BlipForImageTextRetrieval

    from cutline.core.records import Sample
    from cutline.families.blip import BlipMatcher
    from cutline.train.embedding_space import RetrievalBatch
    from cutline.train.objective import Context, Step
    from cutline.train.retriever import RetrievalLearner
    from cutline.train.settings import TrainSettings
    from cutline.train.trainable import open_parts

    torch.set_num_threads(1)
    samples = [
        Sample(id=f"{n}", image=f"{n}.jpg", captions=(f"dog number {n} runs in the snow",)) for n in range(count)
    ]
    captions = [sample.captions[0] for sample in samples]
    tiny = BlipMatcher.tiny(captions)
    sizes = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
    }  # fmt: skip
    vision = tiny.model.config.vision_config.to_dict() | sizes | {"image_size": size, "patch_size": 16}
    text = tiny.model.config.text_config.to_dict() | sizes | {"encoder_hidden_size": width}
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(BlipConfig(vision_config=vision, text_config=text, image_text_hidden_size=64))
    family = BlipMatcher(model, tiny.image_processor, tiny.tokenizer)
    open_parts(family, {})
    settings = TrainSettings(retrieval={"mini_batch_size": chunk, "itm": float(itm)})
    retriever = RetrievalLearner(settings, Context(family, samples)).train()
    positives = retriever.space.positives
    batch = RetrievalBatch(
        visual={"pixel_values": torch.empty(count, 3, size, size).uniform_(-1, 1)},
        captions=captions,
        rows=torch.arange(count),
        images=torch.tensor(positives.images),
        texts=torch.tensor(positives.texts(captions)),
    )
    before, begun, loss = _peak(), time.process_time(), 0.0
    for chunk_of_images in retriever.chunks({"batch": batch}, list, Step()):
        output = retriever(chunk_of_images)
        output.loss.backward()
        loss += sum(float(one) for one in output.terms.values())
    return {"loss": loss, "peak": _peak() - before, "seconds": time.process_time() - begun}


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
