"""A connection to a Ray cluster, or one line on why there is none.

`ray.init` waits two minutes for a cluster that does not answer, and hears nothing meanwhile. So
another process asks first, and is ended if that takes too long.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from benchmark.base.errors import ConfigError

ANSWER_SECONDS = 15.0
"""How long a cluster may take to answer, the start of the asking process included."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Stay connected to a cluster within the block.

    Args:
        address: HOST:PORT, or auto; empty for what RAY_ADDRESS says, or else a cluster of this
            machine alone, which ends with the block.

    Raises:
        ConfigError: there is no such cluster, it does not let us in, or it runs another release.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark reports to nobody
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address:
        _ask(address)
    settings = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"run.address {address!r}: {_last_line(str(error))}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _ask(address: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"run.address {address!r}: no Ray cluster answers within {ANSWER_SECONDS:g} seconds; "
            "give HOST:PORT as `ray start --head` tells it"
        ) from error
    if asked.returncode != 0:
        raise ConfigError(f"run.address {address!r}: {_last_line(asked.stderr)}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[-1]
