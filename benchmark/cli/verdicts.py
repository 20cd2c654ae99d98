"""The comparison at C* as a table for a terminal, from the tables of a report; without torch."""

from pathlib import Path

import pandas as pd

from benchmark.base.errors import RecordError
from benchmark.cli.terminal import FittedTable
from benchmark.report import formats
from benchmark.report.frames import rows


def verdicts(results: Path) -> FittedTable:
    """The comparison at C*, from the tables of a report.

    Raises:
        RecordError: there is no report.
    """
    path = results / "tables" / "summary.csv"
    if not path.is_file():
        raise RecordError(
            f"{path}: no such file; write the report first: growbench report {results}"
        )
    summary = pd.read_csv(path, keep_default_na=False, na_values=[""])
    names = ("method", "minus scratch", "verdict", "test bpb", "minus best fixed", "role",
             "parameters", "FLOPs", "time")  # fmt: skip
    table = FittedTable(names, prose=("verdict",), spare=names[:2:-1])
    for row in rows(summary):
        word, than = (
            str(row[k]) if isinstance(row.get(k), str) else "" for k in ("verdict", "worse_than")
        )
        word = formats.verdict(word, row["n"], than)
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
