"""A report depends on its records alone: not on who renders it, nor where, nor on what machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_records import SMALL, SUITE, TARGET, Planted, write_records

import benchmark

MORE = (
    Planted(name="wild", sizes=(SMALL, TARGET), status="diverged", ends_at=0.6),
    Planted(name="Größe", sizes=(SMALL, TARGET), offset=0.01),
)
THEIR_TASTE = """
axes.formatter.use_locale: True
axes.titlesize: 20
figure.dpi: 55
figure.facecolor: yellow
font.family: DejaVu Serif
path.sketch: 1, 100, 2
savefig.dpi: 90
svg.fonttype: none
svg.hashsalt: theirs
timezone: Asia/Kathmandu
"""
PERSONAL = ("LANG", "LC_", "MATPLOTLIB", "MPL", "XDG_")
HERE = {
    "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
THERE = {
    "LC_ALL": "C", "LANG": "de_DE.UTF-8", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "4711",
    "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3",
    # the arithmetic of an older processor, as far as this one has it
    "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA",
}  # fmt: skip


def run(home: Path, settings: dict[str, str], umask: int, *command: str) -> str:
    """What Python prints in a process that knows nothing of the one that runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(PERSONAL)}
    own = {"HOME": str(home), "PYTHONPATH": str(Path(benchmark.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *command],
        env=kept | own | settings,
        cwd=home,
        umask=umask,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode, path.read_bytes())
        for path in files
    }


@pytest.mark.slow
def test_a_report_is_the_same_bytes_for_everyone_and_everywhere(tmp_path: Path) -> None:
    mine, theirs = (tmp_path / "mine" / "toy", tmp_path / "another's" / "toy")
    my_home, their_home = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (mine, theirs):
        write_records(folder, (*SUITE, *MORE), noise=0.01, missing=(("slow", 1),))
    my_home.mkdir()
    their_home.mkdir()
    (their_home / "matplotlibrc").write_text(THEIR_TASTE)
    asked = ("-c", "import matplotlib; print(matplotlib.rcParams['figure.dpi'])")
    assert [float(run(home, THERE, 0o077, *asked)) for home in (my_home, their_home)] == [100, 55]
    run(my_home, HERE, 0o022, "-m", "benchmark", "report", str(mine))
    run(their_home, THERE, 0o077, "-m", "benchmark", "report", str(theirs))
    assert contents(mine) == contents(theirs)
    assert {"report.md", "report.html", "figures/curves_flops.png"} <= contents(mine).keys()
