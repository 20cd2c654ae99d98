"""Fails a test that takes long and is not marked slow, so that `make quick` stays quick.

What counts is CPU time, its own and that of child processes that it waits for: a busy machine makes
a test wait, but hardly work more. Shared fixtures count for the first test that needs them. A slow
processor does more of it for the same test, so .ci/run, which nobody chose the machine of, allows
more: GROWBENCH_TEST_SECONDS.
"""

import os
from collections.abc import Generator

import pytest

LIMIT_SECONDS = float(os.environ.get("GROWBENCH_TEST_SECONDS", "2"))
STARTED = pytest.StashKey[float]()


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Start the clock before the fixtures are made."""
    item.stash[STARTED] = cpu_seconds()
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Stop it after the test."""
    yield
    spent = cpu_seconds() - item.stash[STARTED]
    if spent > LIMIT_SECONDS and item.get_closest_marker("slow") is None:
        pytest.fail(
            f"took {spent:.1f} s of CPU, fixtures included, and {LIMIT_SECONDS:g} s are allowed: "
            "make it smaller, or mark it @pytest.mark.slow",
            pytrace=False,
        )
