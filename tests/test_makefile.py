"""What `make bench` decides before anything trains."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder like .venv/bin, whose PyTorch has no CUDA."""
    for name, line in (("python", "echo False"), ("growbench", 'echo "$@"')):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    return tmp_path


def bench(tools: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """Run `make bench` with these tools, as if it were set up."""
    command = ["make", "--no-print-directory", "-o", "setup", "bench", f"BIN={tools}", *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_a_gpu_bench_runs_suite_cpu(tools: Path) -> None:
    assert bench(tools, f"GPU={tools}/absent").stdout == "run cpu\n"


def test_with_cuda_bench_runs_suite_gpu(tools: Path) -> None:
    (tools / "python").write_text("#!/bin/sh\necho True\n")
    assert bench(tools, f"GPU={tools}/python").stdout == "run gpu\n"


def test_a_gpu_that_pytorch_cannot_use_stops_bench(tools: Path) -> None:
    done = bench(tools, f"GPU={tools}/python")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is a GPU ({tools}/python), but PyTorch cannot use it" in done.stderr
    assert "make bench SUITE=cpu" in done.stderr


def test_a_suite_that_is_named_runs_whatever_the_gpu_does(tools: Path) -> None:
    assert bench(tools, f"GPU={tools}/python", "SUITE=cpu", "ARGS=a=1").stdout == "run cpu a=1\n"


def test_a_broken_pytorch_stops_bench(tools: Path) -> None:
    (tools / "python").write_text("#!/bin/sh\nexit 1\n")
    done = bench(tools, f"GPU={tools}/absent")
    assert (done.returncode, done.stdout) == (2, "")
