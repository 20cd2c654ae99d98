"""What a terminal can show: the characters of its encoding, and the columns that fit its width."""

import codecs
import sys
from collections.abc import Collection, Sequence
from io import TextIOWrapper

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 160
PROSE_WIDTH = 24
"""Least width of a column that may wrap, unless what it holds is shorter."""

BAR_WIDTH = 12
_PLAIN = {ord("\N{EM DASH}"): "-"}


def accept_every_character() -> None:
    """From now on a character that stdout or stderr cannot encode is replaced, not an error."""
    codecs.register_error("growbench", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="growbench")


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(c if c.isascii() else "?" for c in found), error.end


def console() -> Console:
    """Standard output; as wide as the terminal, or wide where there is none."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(width=width, markup=False, emoji=False, highlight=False)


class FittedTable:
    """A table that leaves out columns rather than cut a number.

    Args:
        names: headings of the columns; the first one always stays.
        prose: columns of text that may wrap.
        spare: columns to leave out where they do not all fit, least worth first.
    """

    def __init__(
        self, names: Sequence[str], *, prose: Collection[str] = (), spare: Sequence[str] = ()
    ) -> None:
        self.names, self.prose, self.spare = names, prose, spare
        self.rows: list[Sequence[RenderableType]] = []

    def add_row(self, *cells: RenderableType) -> None:
        """Add one cell for each column: text, or something that is `BAR_WIDTH` wide."""
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self.names)))
        for name in self.spare:
            if sum(map(self._width, kept)) <= options.max_width:
                break
            kept.remove(self.names.index(name))
        table = Table(box=None, header_style="bold")
        for i in kept:
            table.add_column(
                self.names[i],
                justify="right" if i > 0 and self._is_numeric(i) else "left",
                no_wrap=self.names[i] not in self.prose,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(row[i] for i in kept))
        yield table

    def _is_numeric(self, column: int) -> bool:
        if self.names[column] in self.prose:
            return False
        return any(c.isdigit() for row in self.rows for c in str(row[column]))

    def _width(self, column: int) -> int:
        """Least width of a column, with the space around it."""
        name = self.names[column]
        width = max(cell_len(name), *(_cell_width(row[column]) for row in self.rows), 0)
        return 2 + (min(width, PROSE_WIDTH) if name in self.prose else width)


def _cell_width(cell: RenderableType) -> int:
    return cell_len(str(cell)) if isinstance(cell, str | Text) else BAR_WIDTH
