"""A test that takes long says so by its mark."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import subprocess
import sys
import time

import pytest
from cpu_limit import LIMIT_SECONDS

WORK = f"import time\\nwhile time.process_time() < {LIMIT_SECONDS + 0.1}: pass"


@pytest.fixture
def child():
    subprocess.run([sys.executable, "-c", WORK], check=True)


def test_whose_fixture_works_in_another_process(child): ...


@pytest.mark.slow
def test_that_is_marked(child): ...


def test_that_waits():
    time.sleep(LIMIT_SECONDS + 0.1)
"""


@pytest.mark.slow
def test_long_work_fails_without_the_mark_and_waiting_does_not(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(TESTS)
    options = ("-p", "cpu_limit", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestWarning")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *options, str(tmp_path)],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 failed, 2 passed" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FAILED"))
    assert "test_whose_fixture_works_in_another_process" in line
    assert "s of CPU, fixtures included, and 2 s are allowed" in done.stdout
