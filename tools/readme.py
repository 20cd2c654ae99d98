"""Fills the parts of README.md that are facts: the answer of suite `cpu`, and what is where.

`python -m tools.readme` writes them; with `--check` it exits with 1 if the page says anything else.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from benchmark.base.paths import ROOT
from benchmark.report import formats
from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.controls import SCRATCH
from benchmark.report.formats import table
from benchmark.report.frames import Row, rows
from benchmark.report.prose import n_seeds

PAGE = ROOT / "README.md"
SUITE = "results/cpu"
MOST_ROWS = 8
WIDTH = 16
TOP = {
    "baselines": "the contestants: one published method per file",
    "configs": "suites, methods, presets, corpora, machines, as YAML",
    "docs": "protocol, suites, methods (generated), results, scaling; decisions in adr/",
    "results": "published results, one folder per suite; yours go to results/local",
    "tests": "one file per module, and rules of the repository",
    "tools": "this page's generator, and speed beside references",
}


def answer() -> str:
    """What suite `cpu` says, at which scale, and what not to conclude from it; at most 8 rows."""
    analysis = analyse_folder(ROOT / SUITE)
    methods = [row for row in rows(analysis.tables["summary"]) if row["role"] == "method"]
    n_better = sum("better" in row["verdict"] for row in methods)
    words = " of ".join(map(str, (n_better or "none", len(methods))))
    figure = f"[![Difference to scratch]({SUITE}/figures/differences.png)]({SUITE}/report.md)"
    return "\n\n".join(
        [
            f"**{words.capitalize()} methods that grow a model is shown to be better than training "
            f"the same model from scratch at equal compute.** {_scale(analysis)} Do not conclude "
            "anything about larger models, other text or another budget from it.",
            figure,
            table(list(_rows(methods))),
            f"The rest, and how to read it: [{SUITE}/report.md]({SUITE}/report.md).",
        ]
    )


def _scale(analysis: Analysis) -> str:
    """The scale of the suite in one sentence."""
    frames = analysis.frames
    target = frames.of(SCRATCH).iloc[0]
    return (
        f"That holds for {formats.count(target.n_params)} parameters, "
        f"{formats.flops(frames.budget_flops)} training FLOPs, {target.train_bytes / 1e6:.1f} MB "
        f"of {target.corpus} text and {formats.plural(n_seeds(analysis), 'seed')}."
    )


def _rows(methods: list[Row]) -> Iterator[dict[str, str]]:
    """The methods that come first in the report, and TokenFormer, which the question is about."""
    named = [row for row in methods if row["method"] == "tokenformer"]
    for row in [row for row in methods if row not in named][: MOST_ROWS - len(named)] + named:
        gap = [row[f"vs_{SCRATCH}{end}"] for end in ("", "_low", "_high")]
        yield {
            "method": f"`{row['method']}`",
            "what grows, when": row["grows"],
            "test bpb minus scratch": formats.difference(*gap),
            "verdict": row["verdict"],
        }


def tree() -> str:
    """The rooms of the harness with the first line of their docstrings, and the other folders."""
    rooms = sorted((ROOT / "benchmark").glob("*/__init__.py"))
    inside = [f"  {room.parent.name + '/':<{WIDTH}}{_headline(room)}" for room in rooms]
    beside = [f"{folder + '/':<{WIDTH + 2}}{what}" for folder, what in TOP.items()]
    harness = "benchmark/        the harness; it never imports a method"
    return "\n".join(["```", harness, *inside, *beside, "```"])


def _headline(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    first = text.partition("\n")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def filled(page: str) -> str:
    """The page with its generated parts as they should be."""
    for name, part in {"answer": answer(), "tree": tree()}.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}{part}\n{end}{rest.partition(end)[2]}"
    return page


def main(check: bool = False) -> None:
    """Write the generated parts, or see whether they are current."""
    page = PAGE.read_text(encoding="utf-8")
    if check and filled(page) != page:
        typer.echo("README.md is not what its sources say; run: python -m tools.readme", err=True)
        sys.exit(1)
    if not check:
        PAGE.write_text(filled(page), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
