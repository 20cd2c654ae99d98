"""What a terminal of 80 x 24 and one of 120 x 40 show: docs/terminal.md, from real commands.

usage: python -m tools.screens

`growbench new suite` writes a suite, which is planned, run and shown in terminals of both sizes.
Times differ from machine to machine, so the tests compare what does not: columns, rows, widths.
"""

import fcntl
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "terminal.md"
SIZES = ((80, 24), (120, 40))
SUITE = "mine"
UNDER_WAY = 0.7
"""Which of the pictures of `run` is shown, as a share of them."""

_HEAD = """\
# What the terminal shows

A suite as `growbench new suite mine` writes it, on two busy cores, in terminals of 80 x 24 and of
120 x 40 characters. Columns that do not fit are left out, those of least worth first; numbers are
never cut. `python -m tools.screens` records this page.
"""
_SEQUENCE = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])")


class Screen:
    """The text on a terminal that scrolls without end; knows what rich uses of its language."""

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0

    def write(self, text: str) -> None:
        """Take in what a program prints."""
        while text:
            if sequence := _SEQUENCE.match(text):
                self._control(*sequence.groups())
                text = text[sequence.end() :]
                continue
            self._put(text[0])
            text = text[1:]

    @property
    def text(self) -> str:
        """All lines, without the empty ones at the end."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip()

    def _put(self, character: str) -> None:
        if character == "\n":
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif character == "\r":
            self.column = 0
        else:
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _control(self, number: str, letter: str) -> None:
        if letter == "A":
            self.row = max(0, self.row - int(number or 1))
        elif letter == "K":
            self.lines[self.row] = ""


def record(size: tuple[int, int], *arguments: str) -> str:
    """What a command prints on a terminal of so many columns and rows."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": "1"}
        command = [sys.executable, "-m", "benchmark", *arguments]
        os.execve(sys.executable, command, environment)
    printed = b""
    try:
        while piece := os.read(terminal, 65536):
            printed += piece
    except OSError:  # the way in which Linux says that the other side has ended
        pass
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit(f"growbench {' '.join(arguments)} ended with {status}: {printed.decode()}")
    return printed.decode()


def screens(printed: str) -> Iterator[str]:
    """The text on the screen each time that a program begins to paint it anew."""
    screen, rest = Screen(), printed
    while rest:
        at = rest.find("\r\x1b[2K", 1)
        screen.write(rest if at < 0 else rest[:at])
        rest = "" if at < 0 else rest[at:]
        yield screen.text


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    home = Path.cwd()
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            record(size, "new", "suite", SUITE)
            plan = list(screens(record(size, "plan", f"{SUITE}.yaml")))[-1]
            run = list(screens(record(size, "run", f"{SUITE}.yaml")))
            show = list(screens(record(size, "show", f"results/local/{SUITE}")))[-1]
            os.chdir(home)
        titles = {
            f"growbench plan {SUITE}.yaml": plan,
            f"growbench run {SUITE}.yaml, under way": run[int(UNDER_WAY * len(run))],
            f"growbench run {SUITE}.yaml, at the end": run[-1],
            f"growbench show results/local/{SUITE}": show,
        }
        parts += [f"## {size[0]} x {size[1]}\n"]
        parts += [f"`{title}`\n\n```text\n{text}\n```\n" for title, text in titles.items()]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
