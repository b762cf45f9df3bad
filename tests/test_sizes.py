"""Files about one thing, functions that are seen whole: a habit, so with room to spare."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Lines.
LONGEST_FILE, LONGEST_FUNCTION = 500, 90


def test_sizes():
    long = []
    for path in sorted((ROOT / "cutline").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if (lines := len(source.splitlines())) > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)} has {lines} lines: divide it by what it is about")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)
