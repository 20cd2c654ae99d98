"""What `pip install` puts on a machine works from an empty folder, without the repository."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("benchmark", "baselines", "configs", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def done(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Output of a command that succeeds."""
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in; what it depends on is what the tests run with."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    pip = (sys.executable, "-m", "pip")
    alone = ("--quiet", "--no-deps", "--no-index")
    done((*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", folder, source), folder)
    (wheel,) = folder.glob("growbench-*.whl")
    done((*pip, "install", *alone, "--target", folder / "site", wheel), folder)
    return folder / "site"


def kept(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in paths if p.suffix != ".pyc"}


@pytest.mark.parametrize("part", ["benchmark", "baselines", "configs"])
def test_a_wheel_holds_every_file_of_the_harness(installed: Path, part: str) -> None:
    assert kept(installed / part) == kept(ROOT / part)


def test_the_installed_command_lists_runs_reports_and_checks(
    installed: Path, tmp_path: Path
) -> None:
    def run(*command: str | Path) -> str:
        return done(command, tmp_path, PYTHONPATH=str(installed), OMP_NUM_THREADS="1")

    where = run(sys.executable, "-c", "import benchmark; print(benchmark.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    growbench = installed / "bin/growbench"
    names = {line.split()[0] for line in run(growbench, "list").splitlines() if line.strip()}
    assert {
        path.stem for path in (ROOT / "configs").glob("*/*.yaml") if path.parent.name != "preset"
    } <= names
    few = ("methods=[scratch,stacking]", "protocol.budget_flops=2e9")
    report = run(growbench, "run", "smoke", *few).splitlines()[-1]
    assert "stacking" in (tmp_path / report).read_text()
    results = str(Path(report).parent)
    assert run(growbench, "report", results, "--check") == ""
    assert "stacking" in run(growbench, "show", results)
    assert "failed" not in run(growbench, "check", "baselines.stacking:Stacking")
