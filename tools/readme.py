"""Fills in what is a fact: the findings (results/README.md), README.md's answer, what is where.

`python -m tools.readme` writes them; with `--check` it exits with 1 if a page says anything else.
"""

import ast
import sys
from pathlib import Path

import typer

from benchmark.base.paths import ROOT
from tools.findings import Study, findings, headline

PAGE = ROOT / "README.md"
RESULTS = ROOT / "results"
WIDTH = 16
TOP = {
    "baselines": "the contestants: one published method per file",
    "configs": "suites, methods, presets, corpora, machines, as YAML",
    "docs": "protocol, suites, methods (generated), results, scaling; decisions in adr/",
    "results": "published results, one folder per suite; yours go to results/local",
    "tests": "one file per module, and rules of the repository",
    "tools": "generators of this page and of docs/methods.md; speed beside references",
}


def answer(study: Study) -> str:
    """The first paragraph of the findings, and the picture that goes with it."""
    folder = f"results/{study.answers}"
    figure = f"{folder}/figures/differences.png"
    return "\n\n".join([
        headline(study, "results/"),
        f"[![Difference of every method to its controls]({figure})]({folder}/report.md)",
        "The rest, on two pages: [the findings](results/README.md).",
    ])  # fmt: skip


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


def filled(page: str, study: Study) -> str:
    """The page with its generated parts as they should be."""
    for name, part in {"answer": answer(study), "tree": tree()}.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}{part}\n{end}{rest.partition(end)[2]}"
    return page


def files() -> dict[Path, bytes]:
    """Every generated file: this page, the findings and their pictures."""
    study = Study(RESULTS)
    found = {RESULTS / name: content for name, content in findings(study).items()}
    return found | {PAGE: filled(PAGE.read_text(encoding="utf-8"), study).encode()}


def main(check: bool = False) -> None:
    """Write the generated files, or see whether they are current."""
    made = files()
    stale = [path for path, content in made.items()
             if not path.is_file() or path.read_bytes() != content]  # fmt: skip
    stale += [path for path in (RESULTS / "figures").glob("*") if path not in made]
    if check and stale:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in stale)
        typer.echo(f"not what their sources say: {names}; run: python -m tools.readme", err=True)
        sys.exit(1)
    for path in () if check else stale:
        if path not in made:
            path.unlink()
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(made[path])


if __name__ == "__main__":
    typer.run(main)
