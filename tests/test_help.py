"""Help: at once, from anywhere, for every verb, and the page in docs/ says the same."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cutline.cli.main import app, main

ROOT = Path(__file__).parent.parent
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
#: Every command as it is typed; a group's own commands instead of the group.
VERBS = [
    f"{name} {below}".strip() for name, verb in COMMANDS.items() for below in (getattr(verb, "commands", None) or [""])
]


def cutline(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The installed command's own way in, telling at its end what was imported."""
    script = """
import sys
from cutline.cli.main import main
try:
    main()
finally:
    print(*(name for name in ("torch", "transformers", "pydantic", "numpy") if name in sys.modules), file=sys.stderr)
"""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def test_help_imports_nothing_heavy(tmp_path):
    done = cutline("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "\n"
    assert all(verb in done.stdout for verb in COMMANDS)
    assert "..." not in done.stdout.partition("Commands:")[2]  # no verb's line is cut


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_imports_nothing_heavy(verb, tmp_path):
    done = cutline(*verb.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr in ("\n", "pydantic\n")  # typer's own, for the types of a verb's parameters
    assert done.stdout.startswith("Usage: ")
    assert "--debug" in done.stdout
    for line in done.stdout.splitlines():
        assert not line.strip().startswith("--") or len(line.split("  ")) > 1, f"{line} has no explanation"


def test_help_answers_in_a_third_of_a_second(tmp_path):
    def cpu_seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "cutline.cli.main", "--help"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu_seconds() for _ in range(3)) < 0.3


def test_version(tmp_path):
    import cutline as package

    assert cutline("--version", cwd=tmp_path).stdout == f"{package.__version__}\n"


def test_the_page_in_docs_is_what_help_prints():
    where = importlib.util.spec_from_file_location("make_cli_pages", ROOT / "docs/make_cli_pages.py")
    assert where is not None
    assert where.loader is not None
    pages = importlib.util.module_from_spec(where)
    where.loader.exec_module(pages)
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert page == pages.document(), "make docs"
    assert all(f"## cutline {verb}\n" in page for verb in VERBS)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nonsense",
        "run",
        "caption checkpoint",
        "run r.toml --nonsense",
        "caption a b --beams x",
        "caption a b --beams 0",
        "score a b --resamples -1",
    ],
)
def test_wrong_use_is_exit_code_2(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cutline", *arguments.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    if arguments:
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Error: " in printed.err


def test_a_verb_is_one_file_and_one_line(tmp_path):
    """What a contributor adds: here in a package of its own, so that the installed one stays as it is."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/count.py").write_text(
        """
from cutline.cli.options import Json


def count(folder: str, as_json: Json = False) -> None:
    '''Count the files of a folder.'''
    from pathlib import Path

    from cutline.core.errors import CutlineError

    if not Path(folder).is_dir():
        raise CutlineError(f"There is no folder {folder}.", "Check the path.")
    print(len(list(Path(folder).iterdir())))
""".replace("\\\\", "")
    )
    script = """
from cutline.cli import main, verbs
verbs.register(main.app, "extra", {"count": "Count files."})
main.main()
"""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    assert "Count files." in run("--help").stdout
    assert all(option in run("count", "--help").stdout for option in ("--json", "--debug", "Count the files"))
    assert run("count", "extra").stdout.strip() in ("1", "2")  # beside it Python may keep its bytecode
    wrong = run("count", "absent")
    assert (wrong.returncode, wrong.stderr) == (2, "error: There is no folder absent.\n       Check the path.\n")
    assert "Traceback" in run("count", "absent", "--debug").stderr


def test_interruption_says_that_the_command_can_go_on(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("cutline.families.names", interrupted)
    monkeypatch.setattr(sys, "argv", ["cutline", "families"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command resumes from here\n")


def test_a_full_disk_is_a_line_and_not_a_traceback(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "runs/food/predictions.jsonl")

    monkeypatch.setattr("cutline.families.names", full)
    monkeypatch.setattr(sys, "argv", ["cutline", "families"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: No space left on device: runs/food/predictions.jsonl."
    assert len(said) == 2
    monkeypatch.setattr(sys, "argv", ["cutline", "families", "--debug"])
    with pytest.raises(OSError, match="No space"):
        main()


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m cutline.cli.main families | true", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
