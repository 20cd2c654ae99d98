"""The first hour as the README has it: its own commands, copied from it, in an empty folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmark.base.errors import ConfigError
from benchmark.cli.main import app
from benchmark.cli.new import write

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = ROOT / "Makefile"
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """Every line of a page's blocks for the shell, in words, without comments."""
    for block in SHELL.findall(text):
        yield from filter(None, (shlex.split(line, comments=True) for line in block.splitlines()))


def made(target: str) -> list[list[str]]:
    """The commands of growbench that `make` would run for a target."""
    command = ["make", "--dry-run", "--no-print-directory", "-o", "setup", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines() if "/growbench " in line]


def first_hour() -> Iterator[list[str]]:
    """What follows `growbench` in the section "Two minutes" of README.md, `make` carried out."""
    section = (ROOT / "README.md").read_text().partition("## Two minutes")[2].partition("\n## ")[0]
    for tool, *rest in commands(section):
        for command in made(*rest) if tool == "make" else [[tool, *rest]]:
            assert Path(command[0]).name == "growbench"
            yield command[1:]


def refused(command: list[str]) -> str:
    """Why a command of a page cannot be given; empty if it can."""
    tool, *arguments = command
    if tool == "make":
        targets = re.findall(r"^(\w+):", MAKEFILE.read_text(), re.MULTILINE)
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        return f"no target {unknown[0]}" if unknown else ""
    if Path(tool).name != "growbench":
        return ""
    name, *rest = arguments
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if name not in known:
        return f"no command {name}"
    try:
        known[name].make_context(name, rest)
    except Exception as error:  # noqa: BLE001 - of the class that typer has for it
        return f"{name}: {error}"
    return ""


def growbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_command_of_the_documents_can_be_given() -> None:
    found = [(page.name, command) for page in PAGES for command in commands(page.read_text())]
    assert sum("growbench" in command[0] for _, command in found) > 20
    assert [(page, why) for page, command in found if (why := refused(command))] == []


def test_finds_a_command_that_cannot_be_given() -> None:
    page = "```sh\ngrowbench plam cpu  # what?\ngrowbench plan cpu --machin h100\nmake smok\n```\n"
    assert [why.partition(":")[0] for why in map(refused, commands(page))] == [
        "no command plam", "plan", "no target smok",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_commands_of_the_readme_work_in_an_empty_folder(tmp_path: Path) -> None:
    found = list(first_hour())
    kinds = ["run", "show", "new", "new", "check", "run", "run", "run", "compare"]
    assert [command[0] for command in found] == kinds
    letters = np.random.default_rng(0).integers(97, 123, 800_000, np.uint8)
    (tmp_path / "my.txt").write_bytes(letters.tobytes())
    small = ["protocol.seeds=[0]", "protocol.budget_flops=2e9", "run.workers=1"]
    for command in [*found, ["audit", "mine"], ["report", "mine", "--check"]]:
        settings = [*small, "methods=[scratch,stacking]"] if command[1] == "smoke" else small
        done = growbench(tmp_path, *command, *(settings if command[0] == "run" else ()))
        assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "results/local").iterdir()} == {
        "mine",
        "own",
        "smoke",
    }
    recorded = " ".join((ROOT / "docs/terminal.md").read_text().split())
    planned = growbench(tmp_path, "plan", "mine.yaml", "--no-probe").stdout
    sentences = [line for line in planned.splitlines() if not line.startswith(" ")]
    assert sentences
    assert [line for line in sentences if line not in recorded] == []
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
