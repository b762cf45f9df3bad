"""The public door: exactly these names, each explained, and nothing heavy behind it before it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import cutline
from tests.conftest import drawing

NAMES = [
    "Captioner",
    "CutlineError",
    "Dataset",
    "Hit",
    "Prediction",
    "Sample",
    "Score",
    "ScoreInfo",
    "Scorer",
    "load",
    "prepare",
    "score",
]


def test_the_door_has_exactly_these_names():
    assert cutline.__all__ == NAMES
    assert set(NAMES) <= set(dir(cutline))
    assert cutline.__version__


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_explained(name):
    thing = getattr(cutline, name)
    assert thing.__module__.startswith("cutline.")
    explanation = inspect.getdoc(thing)
    assert explanation
    # a dataclass without a docstring gets its signature for one
    assert not explanation.startswith(f"{name}(")


@pytest.mark.parametrize("name", NAMES)
def test_public_methods_are_explained_and_typed(name):
    thing = getattr(cutline, name)
    methods = inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else [(name, thing)]
    for method, function in methods:
        if method.startswith("_") and method != "__init__":
            continue
        signature = inspect.signature(function)
        untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
        assert not untyped, f"{name}.{method}: {untyped}"
        if function.__module__.startswith("cutline.") and not method.startswith("_"):
            assert inspect.getdoc(function) or method in ("to_json", "from_json"), f"{name}.{method}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        cutline.lod  # noqa: B018


def test_star_import_gives_the_door_and_nothing_else():
    found: dict[str, object] = {}
    exec("from cutline import *", found)
    assert set(found) - {"__builtins__"} == set(NAMES)


def test_import_is_light():
    command = [sys.executable, "-X", "importtime", "-c", "import cutline"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "cutline" in imported
    for heavy in ("torch", "transformers", "pydantic", "numpy", "PIL", "pyarrow", "rich", "typer", "matplotlib"):
        assert heavy not in imported


PREPARE = """
import sys
import cutline
from cutline.data.settings import DataSettings
report = cutline.prepare(DataSettings(source=sys.argv[1]), sys.argv[2])
assert report.samples == 3, report
print(*(name for name in ("torch", "transformers", "matplotlib", "typer") if name in sys.modules))
"""


def test_preparing_without_a_filter_model_loads_no_torch(tmp_path):
    for number in range(3):
        drawing(number).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,a square\n" for number in range(3))
    (tmp_path / "captions.csv").write_text(f"image,caption\n{rows}")
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "captions.csv"), str(tmp_path / "dataset")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
