"""Plug-ins: model families, metrics, readers, steps, objectives and probes, found by name.

The package's own are files of a folder; the file's name is the plug-in's. Another package adds one by an entry point:

    [project.entry-points."cutline.metrics"]
    chrf = "my_package.chrf"          # a module written like the files of cutline/metrics

The groups are ``cutline.families``, ``cutline.metrics``, ``cutline.readers``, ``cutline.steps``, ``cutline.objectives``
and ``cutline.probes``. Listing the names imports nothing.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from cutline.core.errors import CutlineError
from cutline.core.suggest import did_you_mean

_ROOT = Path(__file__).parents[2]


class Plugins:
    """All plug-ins of one kind.

    Args:
        kind: the plural, as in the entry points' group ``cutline.<kind>``.
        noun: the singular, for messages.
        package: the package whose files are Cutline's own plug-ins.
        defines: a regular expression that matches in the source of an own plug-in, and not in the other files of the
            folder. ``^`` matches at the beginning of a line.
        required: attributes that every plug-in has → their type, or the tuple of values that they may have.
        error: raised for an unknown name.
    """

    def __init__(
        self,
        kind: str,
        *,
        noun: str,
        package: str,
        defines: str = "",
        required: Mapping[str, Any] | None = None,
        error: type[CutlineError] = CutlineError,
    ):
        self.kind, self.noun, self.package, self.error = kind, noun, package, error
        self.required = required or {}
        self._defines = re.compile(defines, re.MULTILINE)

    def path(self, name: str) -> Path:
        """The file of one of Cutline's own."""
        return _ROOT.joinpath(*self.package.split("."), f"{name}.py")

    @cached_property
    def own(self) -> tuple[str, ...]:
        """The names of Cutline's own, in alphabetical order."""
        files = sorted(self.path("__init__").parent.glob("*.py"))
        return tuple(
            file.stem
            for file in files
            if not file.stem.startswith("_") and self._defines.search(file.read_text(encoding="utf-8"))
        )

    @cached_property
    def foreign(self) -> dict[str, EntryPoint]:
        """Those of other packages, by name.

        Raises:
            CutlineError: two packages, or a package and Cutline, have a plug-in of the same name.
        """
        points: dict[str, EntryPoint] = {}
        for point in entry_points(group=f"cutline.{self.kind}"):
            if point.name in self.own or point.name in points:
                other = "Cutline itself" if point.name in self.own else _package(points[point.name])
                raise CutlineError(
                    f"The package {_package(point)} has a {self.noun} {point.name}, and so has {other}.",
                    f"Uninstall one of them, or rename its entry point in cutline.{self.kind}.",
                )
            points[point.name] = point
        return points

    def names(self) -> tuple[str, ...]:
        """All names: our own in alphabetical order, then those of other packages.

        Raises:
            CutlineError: two plug-ins have the same name.
        """
        return (*self.own, *sorted(self.foreign))

    def load(self, name: str) -> Any:
        """Imports a plug-in.

        Returns:
            Its module; or the object that a foreign entry point names (``my_package.chrf:Chrf``).

        Raises:
            CutlineError: there is none of that name, or another package's can't be imported or lacks something.
        """
        loaded = self._import(name)
        self._check(name, loaded)
        return loaded

    def _import(self, name: str) -> Any:
        if name not in self.names():
            known = f"Known {self.kind}: {', '.join(self.names())}."
            raise self.error(f"There is no {self.noun} {name!r}.", did_you_mean(name, self.names(), known))
        if name in self.own:
            return importlib.import_module(f"{self.package}.{name}")
        point = self.foreign[name]
        try:
            return point.load()
        except Exception as error:  # whatever a foreign module does when it is imported
            raise self._broken(point, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error

    def find(self, name: str, base: type) -> type:
        """Imports a plug-in that is a class.

        Returns:
            The subclass of ``base`` that the plug-in's module defines. Where several do, their common base among them;
            or the class that a foreign entry point names.

        Raises:
            CutlineError: as for :meth:`load`; or another package's defines no such class.
        """
        loaded = self._import(name)
        members = [loaded] if isinstance(loaded, type) else vars(loaded).values()
        module = loaded.__module__ if isinstance(loaded, type) else loaded.__name__
        classes = [
            item
            for item in members
            if isinstance(item, type) and issubclass(item, base) and item is not base and item.__module__ == module
        ]
        for kind in classes:
            if not any(parent in classes for parent in kind.__mro__[1:]):
                self._check(name, kind)
                return kind
        assert name in self.foreign, f"{module} defines no {self.noun}"
        raise self._broken(self.foreign[name], f"it defines no subclass of {base.__module__}.{base.__name__}")

    def source(self, name: str) -> str:
        """The package that a plug-in comes from; "" for our own."""
        return _package(self.foreign[name]) if name in self.foreign else ""

    def usable(self, base: type | None = None) -> tuple[str, ...]:
        """All names except those of :meth:`broken`."""
        broken = self.broken(base)
        return tuple(name for name in self.names() if name not in broken)

    def broken(self, base: type | None = None) -> dict[str, str]:
        """Those of other packages that can't be used: name → what is wrong. Imports those of other packages.

        Args:
            base: the base class of the plug-ins, where they are classes.
        """
        problems = {}
        for name in self.foreign:
            try:
                if base is None:
                    self.load(name)
                else:
                    self.find(name, base)
            except CutlineError as error:
                problems[name] = error.problem
        return problems

    def _check(self, name: str, loaded: Any) -> None:
        """
        Raises:
            CutlineError: a plug-in of another package lacks a required attribute.
        """
        if name not in self.foreign:
            return
        point = self.foreign[name]
        missing = [attribute for attribute in self.required if not hasattr(loaded, attribute)]
        if missing:
            raise self._broken(point, f"it has no {', no '.join(missing)}")
        for attribute, wanted in self.required.items():
            value = getattr(loaded, attribute)
            if isinstance(wanted, tuple):
                if value not in wanted:
                    raise self._broken(
                        point, f"its {attribute} is {value!r}, not one of {', '.join(map(repr, wanted))}"
                    )
            elif not isinstance(value, wanted):
                raise self._broken(point, f"its {attribute} is not a {wanted.__name__}")

    def _broken(self, point: EntryPoint, reason: str) -> CutlineError:
        package = _package(point)
        return CutlineError(
            f"The {self.noun} {point.name} of the package {package} can't be used: {reason}.",
            f"Fix or uninstall {package}.",
        )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
