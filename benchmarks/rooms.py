"""How much of the house a command walks through: rooms, files, room changes and climbs.

    python benchmarks/rooms.py

Runs the real commands on inputs that it makes itself (drawn pictures, miniatures with random weights): ``caption`` of
one photo, ``score`` of 200 captions by CIDEr-D, ``retrieve search`` by a text, and a whole ``run --tiny``. Each runs in
a process of its own whose calls and returns are traced (``sys.setprofile``).

A room is a folder at the top of ``cutline``. A file is *loaded* when it is imported, and *entered* when one of its
functions runs outside of an import. A *change* is a call or a return from one room to another, and a *climb* is a
change to a higher floor, returns included. Exit code 1 when a command enters more rooms than its goal, or when the
search loads what only pages or scores need.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cutline"


def read_floors() -> dict[str, int]:
    """Room → floor: the table of tests/test_floors.py, and above all rooms "cutline", the package's own file."""
    tree = ast.parse((ROOT / "tests" / "test_floors.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            floors: dict[str, int] = ast.literal_eval(node.value)
            return floors | {"cutline": max(floors.values()) + 1}
    raise LookupError("tests/test_floors.py has no table FLOORS")


FLOORS = read_floors()

#: Command → most rooms that it may enter.
GOALS = {"caption": 7, "score": 6, "search": 7, "run": 12}

#: Modules that a search without a page must not load: what draws pages, and what scores captions. jinja2 draws pages,
#: too, but transformers loads it in any case.
UNWANTED = ("matplotlib", "cutline.report", "cutline.metrics", "pycocoevalcap")


class Trace:
    """Follows the calls and returns of Cutline's functions; one stack for each thread."""

    def __init__(self) -> None:
        self.entered: set[str] = set()
        self.changes = self.climbs = 0
        self.threads = threading.local()
        self._files: dict[str, str] = {}  # a code object's file → its path below the package; "" for other files

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        file = self._file(frame.f_code.co_filename)
        if not file:
            return
        stack: list[str] = self.threads.__dict__.setdefault("stack", [])
        importing: int = self.threads.__dict__.setdefault("importing", 0)
        if frame.f_code.co_name == "<module>":
            self.threads.importing = importing + (1 if event == "call" else -1)
        elif not importing:
            before = stack[-1] if stack else ""
            if event == "call":
                self.entered.add(file)
                stack.append(_room(file))
            elif stack:
                stack.pop()
            after = stack[-1] if stack else ""
            if before and after and before != after:
                self.changes += 1
                self.climbs += FLOORS[after] > FLOORS[before]

    def _file(self, name: str) -> str:
        if name not in self._files:
            path = Path(name)
            self._files[name] = str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else ""
        return self._files[name]


def _room(file: str) -> str:
    """The room of a file, by its path below the package."""
    first = Path(file).parts[0]
    return "cutline" if first == "__init__.py" else first.removesuffix(".py")


def trace(result: Path, arguments: list[str]) -> None:
    """Runs one command in this process, traced, and writes what was counted."""
    from cutline.cli.main import main

    sys.argv = ["cutline", *arguments]
    code: str | int | None = 0
    walk = Trace()
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.setprofile(None)
    loaded = [name for name in sys.modules if name.split(".")[0] == "cutline"]
    counted = {
        "code": code,
        "rooms": sorted({_room(file) for file in walk.entered}, key=lambda room: FLOORS[room]),
        "files": len(walk.entered),
        "loaded": len(loaded),
        "unwanted": [name for name in UNWANTED if name in sys.modules],
        "changes": walk.changes,
        "climbs": walk.climbs,
    }
    result.write_text(json.dumps(counted))


def commands(folder: Path) -> dict[str, list[str]]:
    """Makes each command's inputs in the folder; returns what the commands are called with."""
    from cutline.families.clip import Clip
    from cutline.families.vision_encoder_decoder import VisionEncoderDecoder
    from cutline.images import shapes

    shapes.draw(folder / "shapes", train=24, val=6, test=6)
    pictures = sorted((folder / "shapes").rglob("*.jpg")) or sorted((folder / "shapes").rglob("*.png"))
    VisionEncoderDecoder.tiny().save(folder / "captioner")
    Clip.tiny().save(folder / "towers")
    ids = [str(number) for number in range(200)]
    _write_rows(folder / "predictions.jsonl", ({"id": id, "caption": f"{int(id) % 7} red circles"} for id in ids))
    _write_rows(folder / "references.jsonl", ({"id": id, "captions": ["a red circle"]} for id in ids))
    _quietly("prepare", str(folder / "shapes"), "-o", str(folder / "dataset"))
    _quietly("retrieve", "index", str(folder / "towers"), str(folder / "dataset"), "-o", str(folder / "index"))
    (folder / "recipe.toml").write_text(
        f'[data]\nsource = "{folder / "shapes"}"\n'
        '[model]\nfamily = "vision_encoder_decoder"\ncheckpoint = "tiny"\n'
        "[train]\nepochs = 1\n"
        '[score]\nmetrics = ["cider"]\nresamples = 20\n'
    )
    return {
        "caption": ["caption", str(folder / "captioner"), str(pictures[0])],
        "score": ["score", str(folder / "predictions.jsonl"), str(folder / "references.jsonl"), "--metrics", "cider"],
        "search": ["retrieve", "search", str(folder / "index"), "a red circle"],
        "run": ["run", str(folder / "recipe.toml"), "--tiny", "-o", str(folder / "run")],
    }


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _quietly(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "cutline.cli.main", *arguments], env=_environment(), check=True, capture_output=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(GOALS), action="append", help="trace only this command; repeatable")
    parser.add_argument("--trace", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trace:
        trace(Path(given.trace[0]), given.trace[1:])
        return 0
    good = True
    print("| command | rooms | goal | files entered | files loaded | changes | climbs | which |\n|" + "---|" * 8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, arguments in commands(folder).items():
            if given.only and command not in given.only:
                continue
            result = folder / f"{command}.json"
            done = subprocess.run(
                [sys.executable, __file__, "--trace", str(result), *arguments],
                env=_environment(),
                capture_output=True,
                text=True,
            )
            counted: dict[str, Any] = {"code": done.returncode}
            if result.exists():
                counted = json.loads(result.read_text())
            if counted["code"]:
                print(f"cutline {' '.join(arguments)}: exit code {counted['code']}\n{done.stderr}", file=sys.stderr)
                return 2
            rooms, unwanted = counted["rooms"], counted["unwanted"] if command == "search" else []
            good = good and len(rooms) <= GOALS[command] and not unwanted
            print(
                f"| `{command}` | **{len(rooms)}** | {GOALS[command]} | {counted['files']} | {counted['loaded']} "
                f"| {counted['changes']:,} | {counted['climbs']:,} | {', '.join(rooms)} |",
                flush=True,
            )
            if unwanted:
                print(f"search loads {', '.join(unwanted)}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
