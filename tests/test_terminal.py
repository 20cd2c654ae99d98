"""What is printed fits the terminal: no error for its encoding, no number cut for its width."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import yaml
from rich.console import Console

from benchmark.cli import listing
from benchmark.cli.display import Display
from benchmark.cli.terminal import FittedTable
from benchmark.cli.verdicts import verdicts, withheld
from benchmark.session.session import Session
from tools.screens import PAGE, SUITE

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


FIRST_WORD = """
import io, sys
from benchmark.cli.main import main

class Out(io.StringIO):
    def write(self, text):
        sys.exit(f"{text.strip()}: {sorted({'torch', 'pandas', 'omegaconf'} & set(sys.modules))}")

sys.stdout = Out()
main(["run", "cpu"])
"""


def test_a_run_says_something_before_anything_large_is_imported() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FIRST_WORD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == "planning cpu and starting workers: []\n"


def test_at_80_columns_there_are_method_difference_interval_and_verdict() -> None:
    lines = printed(verdicts(RESULTS), 80).splitlines()
    assert lines[0].split()[:4] == ["method", "minus", "scratch", "verdict"]
    assert len(lines) == len((RESULTS / "tables/summary.csv").read_text().splitlines())
    assert max(map(len, lines)) <= 80
    stacking = next(line for line in lines if line.startswith(" stacking "))
    assert re.search(r"[+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\]  \w", stacking)


def test_where_there_is_no_verdict_the_report_s_own_words_say_why() -> None:
    assert list(withheld(RESULTS)) == []
    source = "its source (d_model 36, n_head 3, n_token 27) was not trained alone at C*"
    *_, last = withheld(ROOT / "results/tokenformer_figures")
    assert last.startswith(
        "no verdict: continued_tokenformer and repeated_tokenformer (its control "
    )
    assert last.endswith(f"; {source})")


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


RECORDED = re.compile(r"^`(growbench [^`]+)`\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAN, UNDER_WAY, END, SHOW = range(4)


def recordings() -> dict[int, list[list[str]]]:
    """The lines of each recording in docs/terminal.md, by width."""
    _, *parts = re.split(r"^## (\d+) x \d+\n", PAGE.read_text(), flags=re.MULTILINE)
    texts = {
        int(width): RECORDED.findall(part) for width, part in zip(*[iter(parts)] * 2, strict=True)
    }
    return {width: [text.splitlines() for _, text in found] for width, found in texts.items()}


def columns(lines: list[str]) -> list[str]:
    """Headings of the table in a recording."""
    heading = next(line for line in lines if line.startswith(" method"))
    return re.split(r"\s{2,}", heading.strip())


def test_recordings_fit_their_terminals_and_no_number_is_cut() -> None:
    found = recordings()
    assert {width: len(screens) for width, screens in found.items()} == {80: 4, 120: 4}
    for width, screens in found.items():
        for lines in screens:
            assert max(map(len, lines)) <= width
            assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
        rows = [line for line in screens[SHOW] if " [" in line]
        whole = r"[+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\](  |$)"
        assert rows
        assert all(re.search(whole, row) for row in rows)


def test_recordings_have_the_columns_and_rows_of_today() -> None:
    """What a terminal has no room for is left out, and never the name."""
    tables = {
        PLAN: listing.matrix(cast(Session, None), []).names,
        UNDER_WAY: Display(Console(file=io.StringIO()), []).table([], []).names,
        SHOW: verdicts(RESULTS).names,
    }
    suite = yaml.safe_load((ROOT / "benchmark/cli/templates/suite.yaml").read_text())
    narrow, wide = recordings().values()
    for number, names in tables.items():
        few, many = columns(narrow[number]), columns(wide[number])
        assert few == [name for name in names if name in few]
        assert many == [name for name in names if name in many]
        assert {"method", *few} <= {*many}
    for lines in (narrow[PLAN], narrow[SHOW], narrow[END], wide[PLAN], wide[SHOW], wide[END]):
        assert {*suite["methods"]} <= {line.split()[0] for line in lines if line}
    assert narrow[UNDER_WAY][0] == f"planning {SUITE}.yaml and starting workers"
