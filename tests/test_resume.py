"""A suite that is interrupted and killed ends with the same bits as one that is left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from interrupts import heed_interrupts
from safetensors import safe_open
from tiny_suite import prepare

from benchmark.records.folder import load_suite

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120.0


def start(folder: Path) -> subprocess.Popen[str]:
    """`growbench run` in `folder`, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark", "run", "tiny.yaml"],
        cwd=folder, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 (nothing here holds a lock)
    )  # fmt: skip


def stop(folder: Path, number: signal.Signals) -> tuple[int, str]:
    """Start, wait for a fresh checkpoint and a random while, then signal the whole group."""
    started, process = time.time(), start(folder)
    while not any(p.stat().st_mtime > started for p in folder.glob("**/progress.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.time() < started + TIMEOUT, "no checkpoint"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=TIMEOUT)[1]
    return process.returncode, errors


def finish(folder: Path) -> None:
    process = start(folder)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what depends on the clock and on the memory of the machine."""
    return {k: v for k, v in record.items() if "seconds" not in k and k != "peak_memory_bytes"}


def checkpoints(folder: Path) -> dict[str, dict[str, bytes]]:
    """Bytes of the weights and of both moments, and the state's header, of every stage."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob(".growbench/stages/*/checkpoint.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).numpy().tobytes() for key in file.keys()}  # noqa: SIM118
            state = json.loads(file.metadata()["state"])
        kept = {k: v for k, v in state.items() if k not in ("log_bytes", "position", "start")}
        kept |= {key: timeless(state[key]) for key in ("position", "start")}
        found[path.parent.name] = tensors | {"state": json.dumps(kept).encode()}
    return found


def events(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every record, by run."""
    runs = load_suite(folder / "results" / "local" / "tiny").runs
    return {run.run_id: [timeless(event) for event in run.events] for run in runs}


@pytest.mark.slow
def test_an_interrupted_and_killed_suite_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, broken = (prepare(tmp_path / name, budget=3e9) for name in ("whole", "broken"))
    finish(whole)
    code, errors = stop(broken, signal.SIGINT)
    assert code == 130
    assert errors.splitlines() == [
        "growbench: interrupted; the same command goes on where it stopped"
    ]
    assert stop(broken, signal.SIGKILL)[0] == -signal.SIGKILL
    finish(broken)
    assert checkpoints(whole)
    assert checkpoints(broken) == checkpoints(whole)
    assert len(events(whole)) == 2
    assert events(broken) == events(whole)
