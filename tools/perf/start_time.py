"""How long it takes until a first training step is done, from nothing: processes, imports, set-up.

Two ways: the command that a user types, which plans, locks and starts a worker first; and a process
that executes a stage itself, as the worker does. Beside them, what Lightning takes to be imported.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from tabulate import tabulate

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 60.0

SUITE = {
    "name": "start",
    "version": "1.0",
    "purpose": "to time a first step of suite cpu's target",
    "watermark": "not a result",
    "workload": {"corpus": "synthetic"},
    "protocol": {"budget_flops": 4e10, "seeds": [0]},
    "methods": ["scratch"],
}
"""A run of fifty steps, each of which leaves a record."""

RECORD = b'"kind": "train"'

STAGE = """
from pathlib import Path
from benchmark.plan.config import load_method, load_suite
from benchmark.plan.runs import Run
from benchmark.stage.runner import Context, execute
from benchmark.stage.process import prepare_process
prepare_process(threads=1)
suite = load_suite("suite.yaml", ["run.device=cpu"])
stage = Run(suite, load_method("scratch"), 0, data={}).next_stage([])
execute(stage, Context(corpus=suite.workload.corpus, cache=Path("cache")))
"""

COMMAND, PROCESS, LIGHTNING = "growbench run", "a process of one stage", "import pytorch_lightning"


def measure(n_rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in turn, `n_rounds` times after once that fills the caches of files."""
    works: dict[str, Callable[[], float]] = {
        COMMAND: lambda: _until_recorded("-m", "benchmark", "run", "suite.yaml", "run.device=cpu"),
        PROCESS: lambda: _until_recorded("-c", STAGE),
        LIGHTNING: _until_imported,
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for i in range(n_rounds + 1):
        for name, work in works.items():
            seconds = work()
            if i > 0:
                found[name].append(seconds)
    return found


def _until_imported() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", LIGHTNING], check=True)
    return time.perf_counter() - started


def _until_recorded(*arguments: str) -> float:
    """From the start of a Python process to the end of the first step that it brings about.

    Raises:
        TimeoutError: there is none.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE))
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                while not any(RECORD in log.read_bytes() for log in folder.rglob("*.jsonl")):
                    if time.perf_counter() - started > PATIENCE_SECONDS:
                        raise TimeoutError(f"no step after {PATIENCE_SECONDS:g} seconds")
                    time.sleep(POLL_SECONDS)
                return time.perf_counter() - started
            finally:
                process.kill()


def document(found: dict[str, list[float]]) -> str:
    """Section of the page that `make perf` writes."""
    n_rounds = len(found[COMMAND])
    rows = [
        {"from nothing to": name, "seconds": f"{statistics.median(seconds):.1f}"}
        for name, seconds in found.items()
    ]
    return f"""## Time to the first step

To the end of the first training step of suite `cpu`'s target, medians of {n_rounds} rounds. The
command plans, locks and starts a worker before; "{PROCESS}" is what the worker does.

{tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)}
"""
