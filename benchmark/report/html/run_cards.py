"""What the page tells of each run, as pairs of text: result, card, settings, provenance."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.base.errors import RecordError
from benchmark.records.card import card
from benchmark.records.events import flatten
from benchmark.records.folder import RunRecord, grouped
from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.frames import Row, rows
from benchmark.report.tables import literal

Section = tuple[str, Mapping[str, Any]]
"""A title, and names with their values."""


def run_cards(analysis: Analysis) -> Row:
    """All runs, and the sections they are made of: most are shared, so each is written once."""
    pool: dict[tuple[tuple[str, str], ...], int] = {}
    found = {row["run_id"]: row for row in rows(analysis.frames.runs)}
    runs = []
    for run in analysis.frames.suite.runs:
        row, references = found[run.run_id], []
        for title, values in _sections(run, row):
            if values:
                references.append((title, pool.setdefault(_fields(values), len(pool))))
        keys = ("method", "role", "seed", "status", "error")
        runs.append({"id": run.run_id} | {k: row[k] for k in keys} | {"sections": references})
    return {"runs": runs, "sections": list(pool)}


def _sections(run: RunRecord, row: Row) -> Iterator[Section]:
    yield "Result", _result(row)
    yield from _card(run)
    for part in ("method", "workload", "protocol"):
        if part in run.config:
            yield f"Configuration: {part}", run.config[part]
    yield from _provenance(run)


def _result(row: Row) -> dict[str, str]:
    fields = {
        "status": row["status"],
        "error": row["error"],
        "test bpb": formats.bpb(row["test_bpb"]),
        "validation bpb": formats.bpb(row["val_bpb"]),
        "parameters": formats.count(row["n_params"]),
        "without embedding": formats.count(row["n_params_nonembedding"]),
        "FLOPs charged": formats.flops(row["flops"]),
        "of budget": formats.percent(row["flops"] / row["budget_flops"]),
        "with unmasked attention": formats.flops(row["flops_unmasked"]),
        "steps": formats.count(row["step"]),
        "tokens": formats.count(row["tokens"]),
        "epochs": formats.number(row["epochs"]),
        "time": formats.seconds(row["seconds"]),
        "time of evaluation": formats.seconds(row["eval_seconds"]),
        "peak memory": formats.memory(row["peak_memory_bytes"]),
    }
    return {name: str(value) for name, value in fields.items() if value}


def _card(run: RunRecord) -> Iterator[Section]:
    """The reporting card; of one with a gap, which gap it is."""
    try:
        found = card(run)
    except RecordError as error:
        yield "Card", {"incomplete": str(error)}
        return
    for title, fields in found.items():
        yield f"Card: {title}", fields


def _provenance(run: RunRecord) -> Iterator[Section]:
    """What stages were made with, once for all that are alike; packages apart, as they are many."""
    groups = grouped(run.provenance)
    for group in groups:
        stages = [str(stage["stage"]) for stage in group.pop("stages") if "stage" in stage]
        where = f", stages {formats.listed(stages)}" if len(groups) > 1 else ""
        yield f"Provenance{where}", {k: v for k, v in group.items() if k != "packages"}
        yield f"Packages{where}", group.get("packages", {})


def _fields(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Dotted names and texts; the entries of a list of mappings are numbered from 0."""
    numbered = {
        name: dict(enumerate(value)) if _is_table(value) else value
        for name, value in values.items()
    }
    return tuple((name, literal(leaf) or formats.DASH) for name, leaf in flatten(numbered).items())


def _is_table(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
