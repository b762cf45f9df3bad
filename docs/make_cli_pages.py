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

Every verb prints data on stdout, and talk and progress on stderr. `-` is stdin or stdout. A verb that was killed goes
on where it was when the same command is started again.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | images, rows or checks failed; the last line says how many, the output says why |
| 2 | something that you can mend: one line says what is wrong, the next what to do (`--debug` shows where it was) |
| 130 | interrupted |

This page is made from the code by `make docs`.
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
