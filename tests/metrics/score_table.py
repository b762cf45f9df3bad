"""The table of all scores in docs/metrics.md; ``python -m tests.metrics.score_table`` writes it anew."""

from __future__ import annotations

from pathlib import Path

from cutline.metrics import find

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
BEGIN, END = "<!-- scores: python -m tests.metrics.score_table -->\n", "<!-- end of scores -->\n"
_UNITS = {"share": "%", "words": "words", "": "–"}
_BETTER = {True: "higher", False: "lower", None: "–"}


def table() -> str:
    """One row for each score, metric by metric."""
    rows = ["| score | label | meaning | unit | better |", "|---|---|---|---|---|"]
    for name in find.PLUGINS.own:
        rows += [
            f"| `{one.name}` | {one.label} | {one.meaning} | {_UNITS[one.unit]} | {_BETTER[one.higher_is_better]} |"
            for one in find.load(name).scores
        ]
    return "\n".join(rows) + "\n"


def divide(page: str) -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands after it."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside, after


if __name__ == "__main__":
    before, _, after = divide(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")
