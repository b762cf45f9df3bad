"""The house: which room stands on which floor. Imports point down, and no circle exists at any depth.

Every import counts: at the top of a file, inside functions, under ``TYPE_CHECKING``, and module names in strings.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cutline"

#: Every room at the top, by its floor. What a room imports stands on a lower floor.
FLOORS = {
    "core": 1,
    "images": 2,
    "data": 3,
    "families": 3,
    "metrics": 4,
    "caption": 4,
    "retrieve": 5,
    "ablation": 5,
    "api": 6,
    "train": 6,
    "report": 6,
    "bootstrap": 6,
    "run": 7,
    "check": 7,
    "cli": 8,
}
MOST_FLOORS, MOST_ROOMS = 9, 18

#: What the lowest floors may import from outside, besides the standard library.
OUTSIDE = {
    # huggingface_hub: its constants alone, inside a function, for the folder of the hub's cache
    "core": {"pydantic", "pydantic_core", "tomli_w", "rich", "filelock", "jinja2", "huggingface_hub"},
    "images": {"pydantic", "numpy", "PIL", "imagehash"},
    "data": {
        "pydantic",
        "numpy",
        "pyarrow",
        "PIL",
        "regex",
        "pycurl",
        "spacy",
        "py3langid",
        "datasets",
        "tokenizers",  # the limit of a context line in a model's own tokens; small, and far lighter than transformers
        "ijson",
        "ray",
    },
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """The modules that a file names: in any import statement, and in strings that are a module's whole name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # "from .tower import …"
                above = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*above[: len(above) + 1 - node.level], *([base] if base else [])])
            for name in node.names:
                full = f"{base}.{name.name}"
                yield full if full in MODULES else base
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = node.value.partition(":")[0]
            if named in MODULES and "." in named:
                yield named


@cache
def imports(module: str) -> frozenset[str]:
    """The modules that a module imports, its own package's by their full names."""
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(_imported(tree, module, path.name == "__init__.py")) - {module}


def inside(module: str) -> set[str]:
    return {name for name in imports(module) if name.partition(".")[0] == "cutline"} - {"cutline"}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "cutline"


def test_every_kind_of_import_is_seen():
    source = (
        "if TYPE_CHECKING:\n    import a\ndef f():\n    with x:\n        from c import d\n"
        "from .models import vgg\nimport_module('cutline.core.errors')\nf'{x}'\n'cutline'\n"
    )
    found = set(_imported(ast.parse(source), "cutline.families.blip", False))
    assert found == {"a", "c", "cutline.families.models.vgg", "cutline.core.errors"}


def test_imports_point_down():
    wrong = []
    for module in MODULES:
        wrong += [f"{module} imports {name}, which is no module" for name in inside(module) - MODULES.keys()]
        wrong += [
            f"{module} (floor {FLOORS[room(module)]}) imports {name} (floor {FLOORS[room(name)]})"
            for name in inside(module) & MODULES.keys()
            if module != "cutline" and room(name) != room(module) and FLOORS[room(name)] >= FLOORS[room(module)]
        ]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor():
    rooms = {room(module) for module in MODULES} - {"cutline"}
    assert rooms == FLOORS.keys()
    assert len(rooms) <= MOST_ROOMS
    assert max(FLOORS.values()) <= MOST_FLOORS


def _child(package: str, module: str) -> str:
    """What of a package's own files and folders a module lies in."""
    return module[len(package) + 1 :].split(".")[0] or "__init__"


def test_no_circle_at_any_depth():
    circles = []
    packages = [module for module, path in MODULES.items() if path.name == "__init__.py" and module != "cutline"]
    for package in ["cutline", *packages]:
        within = [module for module in MODULES if module == package or module.startswith(f"{package}.")]
        graph: dict[str, set[str]] = {}
        for module in within:
            if module == "cutline":
                continue
            mine = graph.setdefault(_child(package, module), set())
            mine |= {_child(package, name) for name in inside(module) if name in within} - {_child(package, module)}
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circles.append(f"{package}: {' → '.join(reversed(error.args[1]))}")
    try:
        list(TopologicalSorter({module: inside(module) for module in MODULES if module != "cutline"}).static_order())
    except CycleError as error:
        circles.append(" → ".join(reversed(error.args[1])))
    assert not circles, "\n".join(circles)


def test_no_circle_through_a_scanner():
    """A folder that is scanned for plug-ins imports each of them by a name that it builds."""
    from cutline import families
    from cutline.check import probes
    from cutline.data import readers, steps
    from cutline.metrics import find
    from cutline.train import objectives

    graph = {module: inside(module) for module in MODULES if module != "cutline"}
    for scanner in (families, probes, readers, steps, find, objectives):
        package = scanner.PLUGINS.package
        own = {f"{package}.{name}" for name in scanner.PLUGINS.own}
        assert own <= MODULES.keys()
        graph[scanner.__name__] |= own
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_lower_floors_need_little_from_outside():
    known = set(sys.stdlib_module_names) | {"cutline", "__future__"}
    wrong = []
    for module in MODULES:
        if room(module) in OUTSIDE:
            outside = {name.partition(".")[0] for name in imports(module)} - known
            wrong += [f"{module} imports {name}" for name in outside - OUTSIDE[room(module)]]
    assert not wrong, "\n".join(wrong)


HEAVY = ("torch", "transformers", "datasets", "pandas", "matplotlib", "typer")


def loaded_by(modules: str) -> set[str]:
    """Which heavy libraries are there after importing modules in a fresh process."""
    script = f"import sys, {modules}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_the_lowest_floors_load_no_heavy_library():
    low = [module for module in MODULES if room(module) in {"core", "images", "data"}]
    assert loaded_by(", ".join(low)) == set()


def test_what_needs_no_model_needs_no_torch():
    modules = """
        run.run run.recipe run.preflight metrics.evaluation metrics.comparison families families.settings
        train.settings caption.files metrics.files.predictions metrics.files.references report
    """
    assert loaded_by(", ".join(f"cutline.{name}" for name in modules.split())) == set()
    verbs = [module for module in MODULES if module.startswith("cutline.cli.")]
    assert loaded_by(", ".join(verbs)) <= {"typer"}


def test_a_family_is_known_to_nobody():
    """Code that imports a family by its name would be code for one model."""
    from cutline import families

    named = {f"cutline.families.{name}" for name in families.names()}
    known = [f"{module} imports {name}" for module in MODULES for name in inside(module) & named]
    assert not known, "\n".join(known)
