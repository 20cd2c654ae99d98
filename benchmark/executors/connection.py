"""A connection to a Ray cluster, or one line on why there is none."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from benchmark.base.errors import ConfigError

ANSWER_SECONDS = 15.0
"""How long a cluster may take to answer."""


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
    settings = {"address": address} if address else {"address": "local", "include_dashboard": False}
    if address not in ("", "auto"):
        _reach(address)
    try:
        ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().rpartition("\n")[-1]
        raise ConfigError(f"run.address {address!r}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """See whether anything answers; `ray.init` would wait two minutes for it."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"run.address {address!r}: no Ray cluster answers within {ANSWER_SECONDS:g} seconds "
            f"({error}); give HOST:PORT as `ray start --head` tells it"
        ) from error
