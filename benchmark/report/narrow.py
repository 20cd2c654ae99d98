"""Wide markdown tables as several narrow ones, below one another, each with the first column."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

WIDTH = 100
"""Characters that a table of a page may be wide, where its columns allow it."""

_BAR = re.compile(r"(?<!\\)\|")


def narrowed(page: str) -> str:
    """A page whose tables are at most `WIDTH` wide, unless two of their columns are wider."""
    parts = []
    for is_table, found in groupby(page.split("\n"), lambda line: line.startswith("|")):
        lines = list(found)
        parts += _tables(lines) if is_table else lines
    return "\n".join(parts)


def _tables(lines: Sequence[str]) -> list[str]:
    cells = [_BAR.split(line)[1:-1] for line in lines]
    parts: list[str] = []
    for columns in _groups([len(cell) + 1 for cell in cells[0]]):
        parts += [""] if parts else []
        parts += [f"|{'|'.join(row[i] for i in (0, *columns))}|" for row in cells]
    return parts


def _groups(widths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of the columns of each narrow table, beside the first."""
    group: list[int] = []
    room = WIDTH - widths[0] - 1
    for i, width in enumerate(widths[1:], start=1):
        if group and sum(widths[j] for j in group) + width > room:
            yield group
            group = []
        group.append(i)
    yield group
