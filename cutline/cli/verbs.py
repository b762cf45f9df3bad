"""Turns a plain function into a verb of the command line: ``--debug``, errors and exit codes."""

from __future__ import annotations

import errno
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NoReturn

import typer

from cutline.cli import terminal
from cutline.cli.options import Debug
from cutline.cli.verbosity import quiet_libraries
from cutline.core.errors import CutlineError


def register(app: typer.Typer, package: str, verbs: Mapping[str, str]) -> None:
    """Adds verbs to an app.

    Args:
        package: ``cutline.cli`` or a package in it. The verb ``plan`` is the function ``plan`` in its file ``plan.py``.
        verbs: name → the verb's line in ``--help``.
    """
    for name, short_help in verbs.items():
        function = getattr(import_module(f"{package}.{name}"), name)
        app.command(name, short_help=short_help)(as_command(function))


def as_command(verb: Callable[..., None]) -> Callable[..., None]:
    """The function for typer: with ``--debug``, and with errors that the user can fix shown as two lines.

    A verb that uses ``--debug`` itself has a parameter of that name.
    """
    signature = inspect.signature(verb, eval_str=True)
    parameters = dict(signature.parameters)
    parameters.setdefault(
        "debug", inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    )

    @functools.wraps(verb)
    def command(debug: bool, **options: Any) -> None:
        if "debug" in signature.parameters:
            options["debug"] = debug
        terminal.install()
        quiet_libraries()
        try:
            verb(**options)
        except CutlineError as error:
            if debug:
                raise
            fail(error.problem, error.remedy)
        except OSError as error:  # disk full, no permission, a folder instead of a file
            if debug or error.errno in (None, errno.EPIPE):  # typer exits quietly when a pipe is closed
                raise
            path = f": {error.filename}" if error.filename else ""
            fail(f"{error.strerror}{path}.", "Fix this and run the same command again; --debug shows the traceback.")

    command.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    return command


def fail(problem: str, remedy: str) -> NoReturn:
    """One line for the problem, one for the remedy, and exit code 2."""
    print(f"error: {' '.join(problem.split())}\n       {' '.join(remedy.split())}", file=sys.stderr)
    raise typer.Exit(2)
