"""The files of a report: rendered, written, and checked against what is on disk."""

import json
from pathlib import Path

import pandas as pd

from benchmark.records.events import atomic_write
from benchmark.report.analysis import analyse_folder
from benchmark.report.drawing import Drawing
from benchmark.report.html.page import page as html_page
from benchmark.report.markdown import page
from benchmark.report.plots import draw

INTERACTIVE = "report.html"
"""Megabytes that follow from the rest, so they are not published; it holds every figure."""

_GENERATED = ("tables/*.csv", "figures/*.csv", "figures/*.png", "figures/*.svg")


def render(results_dir: Path) -> dict[str, bytes]:
    """Relative names and bytes of every file of the report: a pure function of the records.

    Raises:
        RecordError: the records are damaged or contradict one another.
    """
    analysis = analyse_folder(results_dir)
    tables = {f"tables/{name}.csv": _csv(table) for name, table in analysis.tables.items()}
    drawing, text = Drawing(analysis), page(analysis)
    images = dict(draw(drawing))
    pages = {"report.md": text, INTERACTIVE: html_page(drawing, text, images)}
    figures = {f"figures/{name}": image for name, image in images.items()}
    return {name: content.encode() for name, content in pages.items()} | tables | figures


def write(results_dir: Path) -> None:
    """Render into the results folder; tables and figures of an older report are removed."""
    files = render(results_dir)
    for name, content in files.items():
        atomic_write(results_dir / name, content)
    for name in generated(results_dir) - files.keys():
        (results_dir / name).unlink()


def check(results_dir: Path) -> list[str]:
    """Names of the files that are missing, superfluous or not what the records say; sorted.

    Only the interactive page may be missing.
    """
    files = render(results_dir)
    wrong = generated(results_dir) - files.keys()
    for name, content in files.items():
        path = results_dir / name
        is_right = path.read_bytes() == content if path.is_file() else name == INTERACTIVE
        if not is_right:
            wrong.add(name)
    return sorted(wrong)


def generated(results_dir: Path) -> set[str]:
    """Names of the tables and figures that are there, whatever report they are of."""
    paths = (path for pattern in _GENERATED for path in results_dir.glob(pattern))
    return {path.relative_to(results_dir).as_posix() for path in paths}


def _csv(table: pd.DataFrame) -> bytes:
    mixed: pd.DataFrame = table.select_dtypes("object", exclude="str")
    texts = mixed.map(lambda cell: json.dumps(cell) if isinstance(cell, dict) else cell)
    plain = table.assign(**{str(name): cells for name, cells in texts.items()})
    return plain.to_csv(index=False, lineterminator="\n").encode()
