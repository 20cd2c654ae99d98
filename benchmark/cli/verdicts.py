"""The comparison at C* as a table for a terminal, from the tables of a report; without torch."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmark.base.errors import RecordError
from benchmark.cli.terminal import FittedTable
from benchmark.report import formats
from benchmark.report.frames import Row, rows
from benchmark.report.statistics import in_words


def verdicts(results: Path) -> FittedTable:
    """The comparison at C*, from the tables of a report.

    Raises:
        RecordError: there is no report.
    """
    names = ("method", "minus scratch", "verdict", "test bpb", "minus best fixed", "role",
             "parameters", "FLOPs", "time")  # fmt: skip
    table = FittedTable(names, prose=("verdict",), spare=names[:2:-1])
    for row in _summary(results):
        word = in_words(row["verdict"], row["n"], row["worse_than"])
        table.add_row(
            str(row["method"]),
            formats.gap(row, "vs_scratch"),
            word if row["status"] == "done" else str(row["status"]),
            formats.bpb(row["test_bpb"]),
            formats.gap(row, "vs_best_fixed"),
            str(row["role"]),
            formats.count(row["n_params"]),
            formats.flops(row["flops"]),
            formats.seconds(row["seconds"]),
        )
    return table


def withheld(results: Path) -> Iterator[str]:
    """Why there is no verdict on some methods, a line for each reason.

    Raises:
        RecordError: there is no report.
    """
    methods = defaultdict[str, list[str]](list)
    for row in _summary(results):
        if row["verdict"] == "no verdict":
            methods[row["withheld"]].append(str(row["method"]))
    for why, names in methods.items():
        because = why or "report.md says which control has no finished run"
        yield f"no verdict: {formats.listed(names)} ({because})"


def _summary(results: Path) -> list[Row]:
    path = results / "tables" / "summary.csv"
    if not path.is_file():
        raise RecordError(
            f"{path}: no such file; write the report first: growbench report {results}"
        )
    texts = ("verdict", "worse_than", "withheld")  # a column without any would be one of numbers
    dtype = dict.fromkeys(texts, str)
    summary = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dtype)
    return rows(summary.fillna(dict.fromkeys(texts, "")))
