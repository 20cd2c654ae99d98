"""The first hour as the README has it: its own commands, copied from it, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.base.errors import ConfigError
from benchmark.cli.new import write

ROOT = Path(__file__).resolve().parent.parent


def commands() -> list[list[str]]:
    """What follows `growbench` in the section "Two minutes" of README.md, without comments."""
    section = (ROOT / "README.md").read_text().partition("## Two minutes")[2].partition("\n## ")[0]
    lines = re.findall(r"^growbench (.*?)(?:  .*)?$", section, re.MULTILINE)
    return [line.split() for line in lines]


def growbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_commands_of_the_readme_work_in_an_empty_folder(tmp_path: Path) -> None:
    found = commands()
    kinds = ["new", "new", "check", "run", "run", "run", "compare"]
    assert [command[0] for command in found] == kinds
    letters = np.random.default_rng(0).integers(97, 123, 800_000, np.uint8)
    (tmp_path / "my.txt").write_bytes(letters.tobytes())
    small = ["protocol.seeds=[0]", "protocol.budget_flops=2e9", "run.workers=1"]
    for command in [*found, ["audit", "mine"], ["report", "mine", "--check"]]:
        done = growbench(tmp_path, *command, *(small if command[0] == "run" else ()))
        assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "results/local").iterdir()} == {"mine", "own"}
    shown = growbench(tmp_path, "show", "mine").stdout
    assert "mirror" in shown
    assert all(len(line) <= 160 for line in shown.splitlines())


def test_nothing_is_overwritten_and_names_are_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    refused = {
        ("suite", "mine"): "mine.yaml: is there already",
        ("suite", "../x"): "must be letters",
        ("method", "a-b"): "must be a Python name",
        ("corpus", "x"): "there is suite and method",
    }
    for (kind, name), words in refused.items():
        with pytest.raises(ConfigError, match=words):
            write(kind, name, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
