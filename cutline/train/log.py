"""The log of a training: ``train/log.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from cutline.core import jsonl, ranks
from cutline.core.errors import TrainingError
from cutline.core.files import write_atomically
from cutline.core.progress import Progress


class Log(TrainerCallback):
    """Writes ``train/log.jsonl``, reports progress, and stops at a loss that is not a number.

    Args:
        path: of the log.
        progress: is told the step after each.
        resumed_at: the step that training continues from; later rows are dropped.
    """

    def __init__(self, path: Path, progress: Progress, resumed_at: int):
        self.path = path
        self.progress = progress
        self._out: jsonl.Appender | None = None
        if not ranks.is_main_process():
            return
        kept = [row for row in jsonl.read(path) if row["step"] <= resumed_at] if path.exists() else []
        write_atomically(path, "")
        self._out = jsonl.Appender(path)
        self._out.write(kept)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self._out:
            self._out.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        row = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4)}
        names = {"learning_rate": "lr", "loss": "loss", "grad_norm": "grad_norm"}
        for name, value in (logs or {}).items():
            if name in names:
                row[names[name]] = value
            elif name.startswith("loss_"):
                row[name] = value
            elif name.startswith("eval_"):
                row["val_" + name.removeprefix("eval_")] = value
        if len(row) > 2 and self._out:
            self._out.write([row])
        loss = (logs or {}).get("loss")
        if loss is not None and not abs(loss) < float("inf"):
            raise TrainingError(
                f"The loss became {loss} by step {state.global_step}.",
                "Lower [train] lr, or use precision float32; the last checkpoint is kept.",
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.progress(state.global_step, state.max_steps)
