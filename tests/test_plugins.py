"""Plug-ins of other packages: a small foreign package is installed and used from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cutline.core.errors import CutlineError, RecipeError
from cutline.core.plugins import Plugins
from cutline.core.suggest import did_you_mean
from tests.conftest import drawing

FAMILY = '''
"""A small captioner of one's own."""

from cutline.families.cnn_rnn import CnnRnn


class Parrot(CnnRnn):
    pass
'''

READER = '''
"""Lines of an image, its split and its caption, with arrows between them."""

from collections.abc import Iterator
from pathlib import Path

from cutline.core.records import Sample

DESCRIPTION = "a .arrows file: image -> split -> caption"


def recognises(source: Path) -> bool:
    return source.suffix == ".arrows"


def read(source: Path, settings) -> Iterator[Sample]:
    for line in source.read_text().splitlines():
        image, split, caption = line.split(" -> ")
        yield Sample(id=image, image=str(source.parent / image), captions=(caption,), split=split)
'''

STEP = '''
"""Captions in capitals."""

from dataclasses import replace

from cutline.core.config import Section

DESCRIPTION = "captions in capitals"
PHASE = "reading"
ORDER = 90
REASONS = {}


class ShoutSettings(Section):
    mark: str = "!"


SETTINGS = ShoutSettings


def open(settings, place):
    return lambda sample: replace(sample, captions=tuple(text.upper() + settings.mark for text in sample.captions))
'''

METRIC = '''
"""How many words a caption has that begin with a given letter."""

import numpy as np

from cutline.core.config import Section
from cutline.core.records import ScoreInfo
from cutline.metrics.base import MeanMetric


class Settings(Section):
    letter: str = "a"


class Letters(MeanMetric):
    scores = (ScoreInfo("letters", "Words with the letter", "Words that begin with the letter.", unit="words"),)
    settings_type = Settings

    def __init__(self, references, settings=None):
        super().__init__(references)
        self.letter = (settings or Settings()).letter

    def values(self, candidates):
        words = [caption.lower().split() for caption in candidates.captions]
        return np.array([[float(sum(word.startswith(self.letter) for word in some))] for some in words])
'''

OBJECTIVE = '''
"""How sure the model is of the captions' tokens: a second term beside their likelihood."""

from cutline.core.config import Section
from cutline.train.objective import CaptionObjective


class ConfidenceSettings(Section):
    weight: float = 0.5


class Confidence(CaptionObjective):
    Settings = ConfidenceSettings
    description = "confidence in the captions' tokens"

    @classmethod
    def weight_of(cls, settings, tasks):
        return settings.weight

    def loss(self, family, batch, step):
        result = family(batch)
        return 2 * result.nll / (result.tokens if step.tokens is None else step.tokens)
'''

PROBE = '''
"""Captions begin with a letter."""

from cutline.check.result import failed, passed

STAGE = "data"
TITLE = "captions begin with a letter"
WHY = "A digit is read aloud differently."
AFTER = ()


def probe(subject):
    wrong = [text for sample in subject.samples for text in sample.captions if not text[0].isalpha()]
    return failed(f"{len(wrong)} captions begin otherwise", "Rewrite them.") if wrong else passed("all do")
'''

EMPTY = "ORDER = 1\n"

WRONG_STEP = "DESCRIPTION = ''\nORDER = 1\nPHASE = 'noon'\nREASONS = {}\nSETTINGS = dict\nopen = print\n"

CLUMSY_READER = "DESCRIPTION = ''\nread = print\n\ndef recognises(source):\n    return source.nothing\n"

NO_SCORES = "from cutline.metrics.base import MeanMetric\n\nclass Bare(MeanMetric):\n    pass\n"

BROKEN = "import a_package_that_nobody_has\n"

ENTRY_POINTS = """
[cutline.families]
parrot = zoo.parrots
broken_family = zoo.broken

[cutline.metrics]
letters = zoo.letters
broken_metric = zoo.broken
no_metric = zoo.arrows
bare_metric = zoo.bare

[cutline.readers]
arrows = zoo.arrows
broken_reader = zoo.broken
empty_reader = zoo.empty
clumsy_reader = zoo.clumsy

[cutline.objectives]
confidence = zoo.confidence
broken_objective = zoo.broken
empty_objective = zoo.empty

[cutline.probes]
letters_first = zoo.letters_first
empty_probe = zoo.empty

[cutline.steps]
shout = zoo.shout
broken_step = zoo.broken
empty_step = zoo.empty
wrong_step = zoo.wrong_step
"""


def install(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> None:
    """Leaves a package in a folder as pip does."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for module, source in modules.items():
        (package / f"{module}.py").write_text(source)
    about = folder / f"{name}_plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugins\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)


Cutline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cutline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cutline:
    """The command line in a process that finds the foreign package beside Cutline."""
    site = tmp_path / "site"
    modules = {
        "parrots": FAMILY,
        "arrows": READER,
        "shout": STEP,
        "letters": METRIC,
        "confidence": OBJECTIVE,
        "letters_first": PROBE,
        "broken": BROKEN,
        "empty": EMPTY,
        "wrong_step": WRONG_STEP,
        "clumsy": CLUMSY_READER,
        "bare": NO_SCORES,
    }
    install(site, "zoo", ENTRY_POINTS, modules)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cutline.cli.main", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    lines = []
    for number in range(12):
        drawing(number).save(tmp_path / f"{number}.png")
        split = ("train", "train", "val", "test")[number % 4]
        lines.append(f"{number}.png -> {split} -> a square of number {number}\n")
    path = tmp_path / "photos.arrows"
    path.write_text("".join(lines))
    return path


def test_a_foreign_family_is_listed_and_rehearsed(cutline: Cutline, source: Path, tmp_path: Path) -> None:
    listed = cutline("families")
    assert "parrot" in listed.stdout.split()
    assert "broken_family" not in listed.stdout
    assert "warning: The family broken_family of the package zoo-plugins can't be used" in listed.stderr
    (tmp_path / "recipe.toml").write_text(
        f'[data]\nsource = "{source}"\n[model]\nfamily = "parrot"\n[model.new]\n[train]\n'
        '[score]\nmetrics = ["bleu4"]\nresamples = 0\n'
    )
    done = cutline("run", "recipe.toml", "--tiny", "-o", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/model/cutline.json").read_text())["family"] == "parrot"
    done = cutline("caption", "run", "0.png", "--max-tokens", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("0.png\t")


def test_a_foreign_objective_trains_and_a_foreign_probe_checks(cutline: Cutline, source: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        f'[data]\nsource = "{source}"\n[model]\nfamily = "cnn_rnn"\n[model.new]\n'
        "[train]\nlogging_steps = 1\n[train.confidence]\nweight = 0.25\n"
    )
    done = cutline("train", "recipe.toml", "--tiny", "-o", "run")
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (tmp_path / "run/train/log.jsonl").read_text().splitlines()]
    rows = [row for row in log if "loss_confidence" in row]
    assert rows
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_captions"] + 0.25 * row["loss_confidence"], abs=1e-4)
    done = cutline("check", "recipe.toml", "--tiny", "-o", "run", "--only", "letters_first", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["probes"]
    assert (row["probe"], row["status"], row["message"]) == ("letters_first", "passed", "all do")
    done = cutline("check", "recipe.toml", "--tiny", "-o", "run", "--only", "empty_probe")
    assert done.returncode == 2
    problem = "error: The probe empty_probe of the package zoo-plugins can't be used: it has no STAGE, no TITLE"
    assert problem in done.stderr
    done = cutline("plan", "recipe.toml", "--set", "train.empty_objective.weight=1")
    assert done.returncode == 2
    assert "the objective empty_objective of the package zoo-plugins can't be used: it defines no" in done.stderr


def test_a_foreign_reader_and_step_prepare_data(cutline: Cutline, source: Path, tmp_path: Path) -> None:
    done = cutline("prepare", source, "-o", "dataset", "--set", "data.steps.shout.mark=?")
    assert done.returncode == 0, done.stderr
    from cutline.data.dataset import Dataset

    captions = {caption for sample in Dataset.open(tmp_path / "dataset") for caption in sample.captions}
    assert "A SQUARE OF NUMBER 7?" in captions
    assert len(captions) == 12


def test_a_foreign_metric_scores_with_its_settings_and_its_label(cutline: Cutline, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,caption\na.jpg,a big animal\nb.jpg,the big bear\n")
    (tmp_path / "r.csv").write_text("image,caption\na.jpg,an ape\nb.jpg,a bear\n")
    command = ("score", "p.csv", "r.csv", "--metrics", "letters,bleu1", "--json")
    for options, value in (((), 1.0), (("--set", "letters.letter=b"), 1.5)):
        done = cutline(*command, *options)
        assert done.returncode == 0, done.stderr
        scores = {row["metric"]: row["value"] for row in json.loads(done.stdout)["scores"]}
        assert (scores["letters"], "bleu1" in scores) == (value, True)
    done = cutline(*command[:-1])
    assert "Words with the letter" in done.stdout
    for name, reason in (
        ("broken_metric", "ModuleNotFoundError"),
        ("no_metric", "it defines no subclass of"),
        ("bare_metric", "it has no scores"),
    ):
        done = cutline("score", "p.csv", "r.csv", "--metrics", name)
        assert done.returncode == 2
        assert f"error: The metric {name} of the package zoo-plugins can't be used: {reason}" in done.stderr


def test_a_broken_plugin_is_an_error_only_when_it_is_used(cutline: Cutline, source: Path) -> None:
    assert cutline("prepare", source, "-o", "dataset").returncode == 0
    reason = "of the package zoo-plugins can't be used: ModuleNotFoundError: No module named"
    done = cutline("prepare", source, "-o", "other", "--set", "data.format=broken_reader")
    assert done.returncode == 2
    assert f"error: The format broken_reader {reason}" in done.stderr
    assert "Fix or uninstall zoo-plugins." in done.stderr
    done = cutline("prepare", source, "-o", "other", "--set", "data.steps.broken_step.key=1")
    assert done.returncode == 2
    assert f"the step broken_step {reason}" in done.stderr
    steps = (("empty_step", "it has no DESCRIPTION, no PHASE"), ("wrong_step", "its PHASE is 'noon', not"))
    for step, lacks in steps:
        done = cutline("prepare", source, "-o", "other", "--set", f"data.steps.{step}.key=1")
        assert done.returncode == 2
        assert f"the step {step} of the package zoo-plugins can't be used: {lacks}" in done.stderr
    done = cutline("prepare", source, "-o", "other", "--set", "data.format=empty_reader")
    assert done.returncode == 2
    assert "The format empty_reader of the package zoo-plugins can't be used: it has no DESCRIPTION" in done.stderr
    (source.parent / "notes.md").write_text("nothing")
    done = cutline("prepare", source.parent / "notes.md", "-o", "other")
    assert "the format clumsy_reader of the package zoo-plugins fails on" in done.stderr
    assert f"The format broken_reader {reason}" in done.stderr  # listed, and named


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plugins]:
    """A function that makes a small own package, with foreign ones on the path, and looks for its plug-ins."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def find(group: str = "tools") -> Plugins:
        return Plugins(group, noun="tool", package="cutline.metrics", defines=r"^class BleuScore\b|^class Cider\w*\(")

    return find


def test_two_plugins_of_one_name_are_an_error(tmp_path: Path, found: Callable[[str], Plugins]) -> None:
    site = tmp_path / "site"
    install(site, "one", "[cutline.tools]\nsaw = one.saw\n[cutline.taken]\ncider = one.saw\n", {"saw": "EDGE = 1\n"})
    assert found("tools").load("saw").EDGE == 1
    assert found("tools").source("saw") == "one-plugins"
    with pytest.raises(CutlineError, match="one-plugins has a tool cider, and so has Cutline itself") as clash:
        found("taken").names()
    assert "Uninstall one of them" in clash.value.remedy
    install(site, "two", "[cutline.tools]\nsaw = two.saw\n", {"saw": ""})
    with pytest.raises(CutlineError, match=r"The package (one|two)-plugins has a tool saw, and so has (one|two)-plug"):
        found("tools").names()


def test_an_entry_point_names_a_module_or_a_class(tmp_path: Path, found: Callable[[str], Plugins]) -> None:
    source = "class Base(dict): pass\nclass Saw(Base): pass\nclass Fine(Saw): pass\n"
    points = "[cutline.tools]\nmodule = three.saws\nfine = three.saws:Fine\n"
    install(tmp_path / "site", "three", points, {"saws": source})
    plugins = found("tools")
    base = plugins.find("module", dict)
    assert base.__name__ == "Base"  # the common base of what the file defines
    assert plugins.find("module", base).__name__ == "Saw"
    assert plugins.find("fine", base).__name__ == "Fine"
    with pytest.raises(CutlineError, match=r"it defines no subclass of builtins\.int"):
        plugins.find("module", int)


def test_our_own_are_told_from_what_stands_beside_them() -> None:
    from cutline.check import probes
    from cutline.data import readers, steps
    from cutline.families import PLUGINS
    from cutline.families.base import Family
    from cutline.metrics import find

    assert {"blip", "clip", "qwen3_vl"} <= {*PLUGINS.own}
    assert not {"base", "open", "settings", "unsupported"} & {*PLUGINS.own}
    assert all(issubclass(PLUGINS.find(name, Family), Family) for name in PLUGINS.own)
    assert {"cider", "bleu", "meteor"} <= {*find.PLUGINS.own}
    assert not {"base", "scorer", "find"} & {*find.PLUGINS.own}
    for plugins in (readers.PLUGINS, steps.PLUGINS, probes.PLUGINS):
        files = {path.stem for path in plugins.path("__init__").parent.glob("*.py")} - {"__init__"}
        assert files == {*plugins.own}
    with pytest.raises(RecipeError, match="There is no format 'karpaty'") as wrong:
        readers.load("karpaty")
    assert wrong.value.remedy == "Did you mean karpathy?"


def test_did_you_mean() -> None:
    assert did_you_mean("cidre", ["bleu", "cider"], "Known: …") == "Did you mean cider?"
    assert did_you_mean("modle", ["model"], "Known: …", form="[{}]") == "Did you mean [model]?"
    assert did_you_mean("xyz", ["bleu", "cider"], "Known: …") == "Known: …"
