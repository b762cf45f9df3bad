"""A small table as plain text, for log messages."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns, one line per row, indented by two spaces.

    Args:
        header: names of the columns.
        rows: cells, as many as the header has in each row.
        left: number of leading columns that are aligned to the left; the others are aligned to the right.
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    )
    return "\n".join(f"  {line}".rstrip() for line in lines)
