"""Guards: they look at a training while it runs, and stop it when it went wrong, before more hours are spent.

A fixed panel of validation images, and one blank image, are captioned every few steps. The captions are kept
(``panel.jsonl``) and judged; so is every logged loss. What a model says early means little, so captions are judged only
once the model had said something sound, or a good part of the training is over, and only when they stay bad.

    train/panel.jsonl    one line a panel: step, captions, what is wrong with them
    train/stopped.json   why and when a guard stopped the training
    train/last-good/     the last checkpoint before captions became bad; the same command resumes from there
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import TrainerCallback

from cutline.caption.caption import caption_pictures
from cutline.core import jsonl, ranks
from cutline.core.errors import TrainingError
from cutline.core.files import write_atomically
from cutline.core.records import Prediction, Sample
from cutline.core.text import split_words
from cutline.families.base import Batch, Family
from cutline.families.settings import GenerateSettings
from cutline.images.open import open_image
from cutline.metrics.hygiene import loops
from cutline.train import last_good
from cutline.train.last_good import LAST_GOOD, STOPPED
from cutline.train.settings import GuardSettings

PANEL = "panel.jsonl"

#: A fault of so many of a panel's captions is the panel's.
SHARE = 0.5
#: Steps between panels where the recipe leaves it open: a twentieth of the training, within these bounds.
BOUNDS = (50, 500)
#: A loss so many times as high as that of guessing is no learning any more.
FAR = 1.5
#: Nats a token that no model can reach on captions that it has not seen before.
IMPOSSIBLE = 0.005

_REMEDIES = {
    "empty": "Lower [train] lr; cutline check says whether the end token stands where it should.",
    "loops": "Lower [train] lr, or open fewer parts; [generate] no_repeat_ngram_size only hides it.",
    "echo": "Make sure by cutline check that the prompt is neither learnt nor said.",
    "endless": "Make sure by cutline check that the end token is a label; else raise [train] val_max_new_tokens.",
    "same": "The image has no influence: open the bridge, or lower [train] lr; cutline check tries two images.",
}


@dataclass(frozen=True)
class Panel:
    """What the model said of the panel's images at one step.

    Attributes:
        made: a prediction for each image.
        blank: what it said of a grey picture.
        references: what people said of each image.
        told: text of each image's prompt, context included; "" where there is none.
        limit_is_short: whether people's captions are as long as the length limit.
    """

    made: Sequence[Prediction]
    blank: str
    references: Sequence[Sequence[str]]
    told: Sequence[str]
    limit_is_short: bool

    def fault(self) -> str | None:
        """What is wrong with most of the captions; None when nothing is."""
        captions = [made.caption or "" for made in self.made]
        found = Counter[str]()
        for caption, made, told, texts in zip(captions, self.made, self.told, self.references, strict=True):
            words = _words(caption)
            found["empty"] += not words
            found["loops"] += loops(words)
            found["endless"] += not made.finished and not self.limit_is_short
            said = " ".join(words)
            found["echo"] += any(
                len(_words(line)) > 2 and " ".join(_words(line)) in said and not _in(line, texts)
                for line in told.splitlines()
            )
        for fault in ("empty", "echo", "loops", "endless"):
            if found[fault] > SHARE * len(captions):
                return fault
        people_differ = len({texts[0] for texts in self.references if texts}) > 1
        if len(captions) > 1 and people_differ and {*captions, self.blank} == {captions[0]}:
            return "same"
        return None


_MEANINGS = {
    "empty": "captions are empty",
    "echo": "captions repeat the prompt",
    "loops": "captions repeat themselves",
    "endless": "captions don't end",
    "same": "every image, and a blank one, gets the same caption",
}


def _words(text: str) -> list[str]:
    return split_words(text)


def _in(line: str, texts: Sequence[str]) -> bool:
    return any(" ".join(_words(line)) in " ".join(_words(text)) for text in texts)


class Guards(TrainerCallback):
    """Captions the panel, judges captions and losses, and stops the training with the reason.

    Args:
        family: in training.
        samples: the panel: validation images with captions.
        validating: all validation images, for the least loss that is possible on them.
        settings: the ``[train.guards]`` section.
        max_tokens: longest caption of the panel.
        least_loss: the smallest training loss that is possible, in nats a token.
        usual_until: step from which the loss means something else; None: it never does.
        folder: of the training.
        resumed_at: the step that training continues from; later panels are dropped.
        precision: opens the autocast of the training.
    """

    def __init__(
        self,
        family: Family,
        samples: Sequence[Sample],
        validating: Sequence[Sample],
        settings: GuardSettings,
        max_tokens: int,
        least_loss: float,
        usual_until: int | None,
        folder: Path,
        resumed_at: int,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self.family, self.samples, self.settings, self.folder = family, samples, settings, folder
        self.generate = GenerateSettings(max_new_tokens=max_tokens, batch_size=16)
        self.usual_until = math.inf if usual_until is None else usual_until
        self.precision = precision
        self.pictures = [open_image(sample.image) for sample in samples]
        self.blank = Image.new("RGB", self.pictures[0].size, (128, 128, 128))
        lengths = sorted(_tokens(family, text) for sample in samples for text in sample.captions)
        self.limit_is_short = lengths[len(lengths) // 2] >= max_tokens
        self.guessing = math.log(max(2, len(family.tokenizer)))
        self.least_training = least_loss
        self.least_validation = least_validation_loss(family, validating)
        self.high = self.low = 0
        self.fine = resumed_at
        (folder / STOPPED).unlink(missing_ok=True)
        path = folder / PANEL
        self.rows = [row for row in jsonl.read(path) if row["step"] <= resumed_at] if path.exists() else []
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))

    # ---- captions

    def every(self, max_steps: int) -> int:
        """Steps from one panel to the next."""
        if self.settings.every != "auto":
            return self.settings.every
        return min(max(max_steps // 20, BOUNDS[0]), BOUNDS[1])

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        step = state.global_step
        if step % self.every(state.max_steps) or any(row["step"] == step for row in self.rows):
            return
        fault = self._look(step, write=state.is_world_process_zero)
        sound = [row["step"] for row in self.rows if row["fault"] is None]
        if fault is None:
            last_good.forget(self.folder)
            return
        # until it has said something sound for the first time, it may learn to
        grown = min(sound, default=math.inf), self.settings.grace * state.max_steps
        judged = [row["fault"] for row in self.rows if row["step"] >= min(grown)]
        if not judged:
            return
        last_good.keep(self.folder, max(sound, default=0))
        last = judged[-self.settings.patience :]
        if len(last) == self.settings.patience and None not in last:
            self._stop(step, fault, f"{_MEANINGS[fault]}, in {len(last)} panels one after another", _REMEDIES[fault])

    def _look(self, step: int, write: bool) -> str | None:
        """Captions the panel and says what is wrong with it."""
        training = self.family.training
        self.family.eval()
        asked = [*self.samples, Sample(id="blank", image="", context=self.samples[0].context)]
        with self.precision():
            made = caption_pictures(self.family, asked, [*self.pictures, self.blank], self.generate)
        self.family.train(training)
        if all(one.status == "failed" for one in made):
            raise TrainingError(
                f"No image of the panel could be captioned: {made[0].error}",
                "Fix what the message names, and run the same command again.",
            )
        panel = Panel(
            made[:-1],
            made[-1].caption or "",
            [sample.captions for sample in self.samples],
            ["\n".join([self.family.prompt, *sample.context.values()]) for sample in self.samples],
            self.limit_is_short,
        )
        fault = panel.fault()
        captions = {one.id: one.caption or "" for one in panel.made}
        self.rows.append({"step": step, "fault": fault, "blank": panel.blank, "captions": captions})
        if write:
            with jsonl.Appender(self.folder / PANEL) as out:
                out.write(self.rows[-1:])
        return fault

    # ---- losses

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or not math.isfinite(loss) or state.global_step > self.usual_until:
            return
        self.high = self.high + 1 if loss > FAR * self.guessing + 1 else 0
        if self.high:
            last_good.keep(self.folder, self.fine)
        else:
            self.fine = state.global_step
        early = (state.epoch or 0.0) < 1 and loss < IMPOSSIBLE
        self.low = self.low + 1 if loss < 0.98 * self.least_training or early else 0
        said = f"the loss is {loss:.3f} nats a token"
        if self.high >= self.settings.patience:
            self._stop(
                state.global_step,
                "high loss",
                f"{said}, where guessing has {self.guessing:.2f}",
                "Lower [train] lr; make sure by cutline check that each label is where it belongs.",
            )
        if self.low >= self.settings.patience:
            self._stop(
                state.global_step,
                "low loss",
                f"{said}, which no model can reach so early",
                "Make sure by cutline check that no caption sees its own future.",
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **rest: Any) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is not None and loss < 0.99 * self.least_validation:
            why = f"the validation loss is {loss:.4f} nats a token"
            self._stop(
                state.global_step,
                "low loss",
                f"{why}; images with several captions can't have less than {self.least_validation:.4f}",
                "Make sure by cutline check that no caption sees its own future.",
            )

    def _stop(self, step: int, guard: str, reason: str, remedy: str) -> None:
        kept = last_good.kept_step(self.folder)
        facts = {"step": step, "guard": guard, "reason": reason, "remedy": remedy, "last_good_step": kept}
        if ranks.is_main_process():
            write_atomically(self.folder / STOPPED, json.dumps(facts, indent=2) + "\n")
        where = f" The weights of step {kept} are kept in {self.folder / LAST_GOOD}." if kept is not None else ""
        raise TrainingError(f"Stopped at step {step}: {reason}.{where}", remedy)


def _tokens(family: Family, text: str) -> int:
    return len(family.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1  # with the end token


def least_validation_loss(family: Family, samples: Sequence[Sample]) -> float:
    """The least mean loss, in nats a token, that any model can have on images with all their captions.

    The probabilities of an image's captions add up to 1 at most, so k different ones cost k ln k nats together.
    """
    nats, tokens = 0.0, 0
    for sample in samples:
        # as the model reads them: some tokenizers know no capitals, and not every word
        texts = [tuple(family.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in sample.captions]
        nats -= sum(n * math.log(n / len(texts)) for n in Counter(texts).values())
        tokens += sum(len(text) + 1 for text in texts)
    return nats / max(tokens, 1)


def not_finite(family: Family, batch: Batch, loss: float, step: int) -> TrainingError:
    """The error of a loss that is no number, with the first module that is to blame."""
    bad = next((name for name, p in family.model.named_parameters() if not torch.isfinite(p.detach()).all()), None)
    first = f"the weights {bad}" if bad else _first_bad_module(family, batch)
    return TrainingError(
        f"The loss became {loss} at step {step + 1}; the first to blame: {first}.",
        "Lower [train] lr, or use precision float32 or bfloat16; the last checkpoint is kept.",
    )


def _first_bad_module(family: Family, batch: Batch) -> str:
    """The first module whose output holds what is no number."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else [output]
            bad = any(isinstance(one, torch.Tensor) and not torch.isfinite(one).all() for one in tensors)
            if bad and not found:
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [
        module.register_forward_hook(look(name))
        for name, module in family.model.named_modules()
        if name and not list(module.children())
    ]
    try:
        with torch.no_grad():
            family(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else "the loss itself"
