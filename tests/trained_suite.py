"""A small suite, trained to the end, and ways to tamper with its results; no test lives here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from synthetic_records import rewrite
from tiny_suite import prepare

from benchmark.audit import CHECKS
from benchmark.audit.evidence import Evidence
from benchmark.audit.files import checksums as changed_files
from benchmark.records.events import Event
from benchmark.records.folder import load_suite, run_file, seal

ROOT = Path(__file__).resolve().parent.parent
METHODS = "methods=[scratch,scratch_half,scratch_small,stacking]"

Events = list[Event]


def train(folder: Path, *settings: str) -> Path:
    """Run the tiny suite with three seeds in `folder`; returns the results folder."""
    prepare(folder)
    command = ["run", "tiny.yaml", METHODS, "protocol.seeds=[0,1,2]", "run.workers=2", *settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", *command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = folder / "results" / "local" / "tiny"
    seal(results)
    return results


def run_log(results: Path, method: str, seed: int = 0) -> Path:
    """The records of one run."""
    runs = load_suite(results).runs
    (run_id,) = (run.run_id for run in runs if (run.method, run.seed) == (method, seed))
    return run_file(results, run_id)


def forge(
    log: Path,
    *,
    events: Callable[[Events], object] | None = None,
    config: Callable[[dict[str, Any]], object] | None = None,
    provenance: Callable[[list[dict[str, Any]]], object] | None = None,
) -> None:
    """Change a run's records and seal them again, as somebody who means it would."""
    results, (run_id, _, _) = log.parent.parent, log.name.partition(".")
    rewrite(results, run_id, events=events, config=config, provenance=provenance)
    seal(results)


def faults(results: Path, check: str) -> list[str]:
    """What one check finds wrong."""
    if check == "checksums":
        return [remark.text for remark in changed_files(results) if remark.is_fault]
    remarks = CHECKS[check](Evidence.of(results))
    return [remark.text for remark in remarks if remark.is_fault]


def replan(results: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change suite.yaml."""
    path = results / "suite.yaml"
    plan = yaml.safe_load(path.read_text())
    change(plan)
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    seal(results)


def last(events: Events, kind: str) -> Event:
    """The last record of a kind."""
    return next(event for event in reversed(events) if event["kind"] == kind)
