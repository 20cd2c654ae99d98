"""What is printed fits the terminal: no error for its encoding, no number cut for its width."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.cli.terminal import FittedTable
from benchmark.cli.verdicts import verdicts

ROOT = Path(__file__).resolve().parent.parent
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


RESULTS = ROOT / "results/cpu"


def printed(table: FittedTable, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENCODINGS.values(), ids=ENCODINGS)
def test_a_character_that_the_terminal_lacks_is_replaced(settings: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "show", str(RESULTS)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    scratch = next(
        line for line in done.stdout.decode().splitlines() if line.startswith(" scratch ")
    )
    assert scratch.split()[:2] == ["scratch", "-"]  # a dash for want of a difference


def test_at_80_columns_there_are_method_difference_interval_and_verdict() -> None:
    lines = printed(verdicts(RESULTS), 80).splitlines()
    assert lines[0].split()[:4] == ["method", "minus", "scratch", "verdict"]
    assert len(lines) == len((RESULTS / "tables/summary.csv").read_text().splitlines())
    assert max(map(len, lines)) <= 80
    stacking = next(line for line in lines if line.startswith(" stacking "))
    assert re.search(r"[+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\]  \w", stacking)


def test_a_wide_terminal_has_every_column() -> None:
    header = printed(verdicts(RESULTS), 200).splitlines()[0]
    assert all(name in header for name in verdicts(RESULTS).names)


@pytest.mark.parametrize("width", [20, 30, 40, 80])
def test_columns_go_before_a_number_is_cut(width: int) -> None:
    names = ("method", "bpb", "difference", "time")
    table = FittedTable(names, spare=("time", "difference", "bpb"))
    table.add_row("a_method", "2.5317", "-0.0057 [-0.0470, +0.0356]", "41 s")
    text = printed(table, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    cells = text.splitlines()[1].replace("57 [", "57|[").replace("70, ", "70,|").split()
    whole = ["a_method", "2.5317", "-0.0057|[-0.0470,|+0.0356]", "41", "s"]
    assert cells == whole[: len(cells)]
    assert len(cells) == {20: 2, 30: 2, 40: 2, 80: 5}[width]


def test_prose_wraps_before_a_column_goes() -> None:
    table = FittedTable(("suite", "purpose", "seeds"), prose=("purpose",), spare=("seeds",))
    table.add_row("cpu", "a purpose that takes many words to be told in full", "3")
    lines = printed(table, 45).splitlines()
    assert lines[0].split() == ["suite", "purpose", "seeds"]
    assert len(lines) == 3
