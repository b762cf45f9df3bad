"""Imports point down only: each file of the package is read, and what it imports must not stand on a higher floor."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cutline"

#: From top to bottom; the first pattern that fits a module's name says its floor.
FLOORS = {
    5: ("cutline.cli", "cutline.api", "cutline.quiet", "cutline.*_verb"),
    4: (
        "cutline.train*", "cutline.report*", "cutline.run", "cutline.rehearsal", "cutline.demo", "cutline.plan",
        "cutline.check*", "cutline.bootstrap*", "cutline.experiment", "cutline.foresight",
    ),
    3: (
        "cutline.features", "cutline.caption", "cutline.caption_files", "cutline.evaluate", "cutline.compare",
        "cutline.prediction_files", "cutline.reference_files", "cutline.retrieve*", "cutline.ablation*",
    ),
    2: (
        "cutline.families*", "cutline.metrics.bertscore", "cutline.metrics.clipscore", "cutline.metrics.fgd",
        "cutline.metrics.encoders", "cutline.metrics.encoder_settings", "cutline.metrics.tiny_encoders",
    ),
    1: ("cutline.data*", "cutline.metrics*"),
    0: (
        "cutline", "cutline.records", "cutline.recipe", "cutline.errors", "cutline.runs", "cutline.jsonl",
        "cutline.progress", "cutline.ranks", "cutline.hub", "cutline.cache", "cutline.identity",
    ),
}  # fmt: skip

#: What the lower floors may import from outside, besides the standard library.
OUTSIDE = {
    0: {"pydantic", "pydantic_core", "tomli_w", "rich"},
    1: {
        "pydantic",
        "rich",
        "numpy",
        "pyarrow",
        "PIL",
        "regex",
        "pycurl",
        "spacy",
        "py3langid",
        "datasets",
        "numba",
        "tokenizers",
        "ray",
    },
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str) -> int:
    found = [floor for floor, patterns in FLOORS.items() if any(fnmatch(module, pattern) for pattern in patterns)]
    assert found, f"{module} stands on no floor: say in FLOORS on which"
    return found[0]


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement, also inside functions, but not what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (statement for part in child.orelse for statement in (part, *_statements(part)))
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from _statements(child)


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module imports, its own package's by their full names."""
    path = MODULES[module]
    found = set()
    for statement in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found |= {name.name for name in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:  # "from .tower import …"
                above = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*above[: len(above) + 1 - statement.level], *([base] if base else [])])
            found |= {f"{base}.{name.name}" if f"{base}.{name.name}" in MODULES else base for name in statement.names}
    return frozenset(found)


def inside(module: str) -> set[str]:
    return {name for name in imports(module) if name.partition(".")[0] == "cutline"}


def test_the_reader_sees_hidden_imports_and_skips_types_only():
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    with x:\n        from c import d\n"
    found = [ast.unparse(statement) for statement in _statements(ast.parse(source))]
    assert "import b" in found
    assert "from c import d" in found
    assert "import a" not in found
    assert "cutline.run" in imports("cutline.cli")  # inside a function
    assert "cutline.families.models.vgg" in imports("cutline.families.models.tower")  # relative
    assert floor_of("cutline.caption_verb") == 5


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    unknown = inside(module) - MODULES.keys()
    assert not unknown, f"{module} imports {unknown}, which is no module"
    above = {name for name in inside(module) if floor_of(name) > floor_of(module)}
    assert not above, f"{module} (floor {floor_of(module)}) imports {above} from above"


def test_no_circles():
    # raises CycleError, which names the circle; the package itself is everybody's parent and imports nobody
    list(TopologicalSorter({module: inside(module) - {"cutline"} for module in MODULES}).static_order())
    assert not inside("cutline")


@pytest.mark.parametrize("module", MODULES)
def test_lower_floors_need_little_from_outside(module):
    if floor_of(module) not in OUTSIDE:
        return
    outside = {name.partition(".")[0] for name in imports(module)} - {"cutline"} - set(sys.stdlib_module_names)
    assert outside <= OUTSIDE[floor_of(module)]


HEAVY = ("torch", "transformers", "datasets", "pandas")


def loaded_by(modules: str) -> list[str]:
    """Which heavy libraries are there after importing modules in a fresh process."""
    script = f"import sys, {modules}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_torch_begins_on_the_second_floor():
    assert loaded_by(", ".join(module for module in MODULES if floor_of(module) < 2)) == []


def test_what_needs_no_model_needs_no_torch():
    modules = (
        "cutline.run", "cutline.cli", "cutline.demo", "cutline.evaluate", "cutline.data.prepare", "cutline.families",
        "cutline.families.settings", "cutline.train.settings", "cutline.score_verb", "cutline.caption_files",
        "cutline.prediction_files", "cutline.reference_files", "cutline.report", "cutline.compare",
    )  # fmt: skip
    assert loaded_by(", ".join(modules)) == []


def test_a_family_is_known_to_nobody():
    """Code that imports a family by its name would be code for one model."""
    from cutline import families

    named = {f"cutline.families.{name}" for name in families.names()}
    for module in MODULES:
        assert not inside(module) & named, f"{module} imports a family by name"
