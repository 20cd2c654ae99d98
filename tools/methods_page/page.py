"""The page, and whether a page is current.

Text, declarations and exact numbers must be the same to the character. A number after "~" was
measured in floating point, on weights drawn by torch: it may differ by 10 % on another machine.
"""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from benchmark import contract
from benchmark.base.paths import CONFIGS
from benchmark.base.plugins import PluginConfig, import_class
from benchmark.contract.subject import Subject
from benchmark.model.transformer import ModelConfig
from benchmark.plan.config import (
    MethodConfig,
    SuiteConfig,
    available,
    load_method,
    load_suite,
)
from benchmark.plan.run import Run
from benchmark.records.card import own_schedule
from benchmark.records.events import atomic_write_text
from benchmark.report import formats
from benchmark.training.baseline import Baseline
from tools.methods_page.certificate import certificate
from tools.methods_page.sources import Source, source

PATH = CONFIGS.parent / "docs/methods.md"
SUITE = "cpu"
"""Whose sizes are shown."""

TOLERANCE = 0.1
_MEASURED = re.compile(r"~([0-9.]+)")
_ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{5})")
_HEADERS = ("method", "grows", "exact", "logits change by", "coverage", "symmetry")
_ORDER = ("method", "control", "hull", "rung")

_HEAD = """\
# The methods

Written by `make methods` from the classes, the configurations and the contract of growth;
`make methods ARGS=--check` and the tests tell when it is out of date. Do not edit.

One row per file in `configs/method` that grows; the sections below, one per module, say what each
is, whose, and where it deviates. Measured on tiny models in float64, in every combination of norm,
positions, activation and head that the method takes; a map that is learned takes two steps:

- **exact**: where the class *declares* that growth keeps the function.
- **logits change by**: largest change right after growth where that is declared, then smallest
  change where it is not; sizes grow together and alone, by the factors 2, 3 and 1.5, or, if the
  function is lost anyway, by the first of these that is allowed.
- **coverage**: share of new entries that a gradient has moved within 20 steps.
- **symmetry**: distance of the two closest copies of a coordinate after 50 steps, relative to their
  length; a dash where nothing is produced twice.

"Grows" tells the sizes, too, of suite `{suite}`. A number after ~ comes from random weights: other
machines give it within {tolerance:.0%}; anything else, to the character.
"""


@dataclass(frozen=True)
class Entry:
    """One file of configs/method and the module of its class."""

    method: MethodConfig
    source: Source

    @property
    def anchor(self) -> str:
        """Heading of its section."""
        return self.source.name.rpartition(".")[2]

    @property
    def link(self) -> str:
        """First cell of its row."""
        return f"[{self.method.name}](#{self.anchor})"

    @property
    def plugin(self) -> str:
        """What is measured once, whatever files name it."""
        return _plugin(measured(self.method))


def measured(method: MethodConfig) -> PluginConfig:
    """The class that is measured and its arguments; a map that is learned takes two steps."""
    cls = import_class(method.target, Baseline, method.name)
    is_learned = "n_steps" in inspect.signature(cls).parameters
    steps: dict[str, Any] = {"n_steps": 2} if is_learned else {}
    return PluginConfig(target=method.target, args=method.args | steps)


def write(path: Path = PATH) -> bool:
    """Write the page unless the one that is there says the same; returns whether it did."""
    text = _rendered()
    if path.is_file() and not _differing(path.read_text(encoding="utf-8"), text):
        return False
    atomic_write_text(path, text)
    return True


def outdated(path: Path = PATH) -> list[str]:
    """Lines of the page that are not current; takes a minute."""
    return _differing(path.read_text(encoding="utf-8"), _rendered())


def outdated_text(path: Path = PATH) -> list[str]:
    """Lines of the page that are not current, believing what its table says was measured."""
    text = path.read_text(encoding="utf-8")
    rows = _rows_in(text)
    return _differing(text, _page([rows.get(entry.link, [entry.link]) for entry in _growing()]))


def outdated_rows(subject: Subject, path: Path = PATH) -> list[str]:
    """Rows of the table that are not what a method measures: all with its class and arguments."""
    rows = _rows_in(path.read_text(encoding="utf-8"))
    same = [entry for entry in _growing() if entry.plugin == _plugin(subject.plugin)]
    fresh = [_row(entry, certificate(subject)) for entry in same]
    return [_line(row) for row in fresh if not _agree(_line(rows.get(row[0], [])), _line(row))]


def _rendered() -> str:
    return _page([_row(entry, _measured(entry.plugin)) for entry in _growing()])


def _page(rows: list[list[str]]) -> str:
    head = _HEAD.format(suite=SUITE, tolerance=TOLERANCE)
    table = [_line(_HEADERS), "|" + "---|" * len(_HEADERS), *map(_line, rows)]
    return "\n".join([head, *table, "", *_sections()])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows_in(text: str) -> dict[str, list[str]]:
    """Rows of the table by their first cells."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[1:]]
    return {row[0]: row for row in rows}


def _growing() -> list[Entry]:
    return [entry for entry in _entries() if entry.method.ladder.n_growths]


@cache
def _entries() -> tuple[Entry, ...]:
    methods = map(load_method, available("method"))
    entries = [Entry(method, source(method.target.partition(":")[0])) for method in methods]
    return tuple(sorted(entries, key=lambda e: (_ORDER.index(e.method.role), e.method.name)))


@cache
def _suite() -> SuiteConfig:
    return load_suite(SUITE)


@cache
def _measured(plugin: str) -> dict[str, str]:
    target, args = json.loads(plugin)
    return certificate(contract.subject(target, args))


def _plugin(plugin: PluginConfig) -> str:
    return json.dumps([plugin.target, plugin.args], sort_keys=True)


def _row(entry: Entry, measured: dict[str, str]) -> list[str]:
    run = Run(_suite(), entry.method, seed=0, data={})
    return [entry.link, _changes(run.sizes) or formats.DASH, *measured.values()]


def _changes(sizes: Sequence[ModelConfig]) -> str:
    """Sizes that change from the first config to the last."""
    first, last = sizes[0], sizes[-1]
    changed = [f"{name} {old} to {last.size(name)}" for name, old in first.sizes().items()
               if last.size(name) != old]  # fmt: skip
    steps = f", in {len(sizes) - 1} steps" if len(sizes) > 2 else ""  # noqa: PLR2004
    return ", ".join(changed) + steps if changed else ""


def _sections() -> Iterator[str]:
    entries = sorted(_entries(), key=lambda entry: entry.anchor)
    for anchor, group in groupby(entries, key=lambda entry: entry.anchor):
        members = list(group)
        found = members[0].source
        papers = [paper for paper in dict.fromkeys(m.method.paper for m in members) if paper]
        papers = [paper for paper in papers if not any(p in paper for p in papers if p != paper)]
        yield f"## {anchor}\n"
        yield _linked(found.text) + "\n"
        for module, deviations in found.deviations:
            where = "" if module == found.name else f"{module.replace('.', '/')}.py: "
            yield where + _linked(deviations) + "\n"
        yield f"- paper: {_linked('; '.join(papers)) or 'none'}"
        yield f"- code: {_code(found)}"
        yield from (_variant(member.method) for member in members)
        yield ""


def _code(found: Source) -> str:
    links = [
        f"[{repository}](https://github.com/{repository}/tree/{commit}) at {commit}"
        for repository, commit in found.code
    ]
    return "; ".join([*([] if found.is_official else ["none official"]), *links])


def _variant(method: MethodConfig) -> str:
    args = ", ".join(f"{name}={value}" for name, value in method.args.items())
    name = method.target.partition(":")[2]
    choices = {"state_policy": method.state_policy, "rewarm": method.rewarm and method.rewarm.which}
    chosen = "".join(f", {key}: {value}" for key, value in choices.items() if value is not None)
    own = f". Own schedule: {found}" if (found := own_schedule(asdict(method))) else ""
    return f"- `{method.name}` ({method.role}): {method.summary}. `{name}({args})`{chosen}{own}"


def _linked(text: str) -> str:
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _differing(old: str, new: str) -> list[str]:
    """Lines of either text that are not those of the other."""
    pairs = zip_longest(old.splitlines(), new.splitlines(), fillvalue="")
    return [before or after for before, after in pairs if not _agree(before, after)]


def _agree(a: str, b: str) -> bool:
    """Whether two lines are the same, measured numbers within the tolerance."""
    if _MEASURED.sub("~", a) != _MEASURED.sub("~", b):
        return False
    pairs = zip(_MEASURED.findall(a), _MEASURED.findall(b), strict=True)
    return all(abs(float(x) - float(y)) <= TOLERANCE * max(float(x), float(y)) for x, y in pairs)
