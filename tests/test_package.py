"""What `pip install` puts on a machine works without the repository beside it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("benchmark", "baselines", "configs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    for name in PARTS:
        path = ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
               "--no-index", "--wheel-dir", str(target), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = target.glob("growbench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target / "site")
    return target / "site"


def kept(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in paths if p.suffix != ".pyc"}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["benchmark", "baselines", "configs"])
def test_a_wheel_holds_every_file_of_the_harness(installed: Path, part: str) -> None:
    assert kept(installed / part) == kept(ROOT / part)


@pytest.mark.slow
def test_an_installed_harness_finds_its_suites_and_methods(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    code = (
        "from pathlib import Path\n"
        "from benchmark.plan import config\n"
        f"assert Path(config.__file__).is_relative_to({str(installed)!r})\n"
        "from benchmark.cli.main import main\n"
        "main(['list'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {path.stem for path in (ROOT / "configs").glob("*/*.yaml")} <= names
