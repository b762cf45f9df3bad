"""Prints docs/cli.md: the help of every verb as ``--help`` prints it, 80 columns wide.

python docs/make_cli_pages.py > docs/cli.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from cutline.cli.main import app

WIDTH = 80

HEAD = """\
# The command line

Results go to stdout, messages and progress to stderr. `-` stands for stdin or stdout. An interrupted verb resumes when
the same command is run again.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | some images, rows or checks failed; the messages say which and why |
| 2 | a mistake that you can fix: one line says what is wrong, the next what to do (`--debug` shows the traceback) |
| 130 | interrupted |

`make docs` generates this page from the code.
"""


def pages() -> Iterator[tuple[str, str]]:
    """Each command as it is typed, with its help."""
    group = typer.main.get_command(app)
    above = typer.Context(group, info_name="cutline", terminal_width=WIDTH)
    yield "cutline --help", group.get_help(above)
    yield from below(group, above, "cutline")


def below(group: Any, above: typer.Context, words: str) -> Iterator[tuple[str, str]]:
    """A group's commands, and those of the groups in it."""
    for name, verb in group.commands.items():
        context = typer.Context(verb, info_name=name, parent=above, terminal_width=WIDTH)
        yield f"{words} {name} --help", verb.get_help(context)
        if hasattr(verb, "commands"):
            yield from below(verb, context, f"{words} {name}")


def document() -> str:
    parts = [HEAD]
    for command, text in pages():
        title = command.removesuffix(" --help")
        lines = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"## {title}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")
