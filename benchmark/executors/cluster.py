"""Runs a suite on a Ray cluster: a task of Ray's for each stage, on a core, and a GPU, of its own.

What a stage needs and leaves lies in a folder that all machines share. Ray finds the machine, tells
of signs of life as they are yielded, and notices what is lost. It tries nothing again by itself:
attempts are counted, limited and told in one place (`executor.py`).
"""

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from typing_extensions import override

from benchmark.base.errors import BenchmarkError, ConfigError, RecordError
from benchmark.executors.executor import Executor, Message, Train
from benchmark.executors.remote import Site, run_stage
from benchmark.executors.track import Failure
from benchmark.plan.config import ExecutionConfig
from benchmark.plan.spec import StageSpec
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute

ANSWER_SECONDS = 15.0
"""How long a cluster may take to answer."""

_TASK: Any = ray.remote(num_returns="streaming", max_retries=0)(run_stage)


class RayExecutor(Executor):
    """Executes stages in a Ray cluster, each on a core, or on a GPU too, of its own.

    The loss of a machine ends an attempt. The first arguments are those of every executor.

    Args:
        n_gpus: of each stage, 0 or 1.
    """

    def __init__(
        self,
        context: Context,
        settings: ExecutionConfig,
        *,
        n_gpus: int = 0,
        train: Train = execute,
    ) -> None:
        super().__init__(context, settings, train=train)
        self.task = _TASK.options(num_cpus=1, num_gpus=n_gpus)
        self.kind = "GPU" if n_gpus else "CPU"
        self.streams: dict[Any, StageSpec] = {}

    @property
    @override
    def n_slots(self) -> int:
        n_found = int(ray.cluster_resources().get(self.kind, 0))
        n = min(self.settings.workers or n_found, n_found)
        return n + (0 < n == n_found)  # one more waits in Ray, so that no slot waits for its stage

    @override
    def begin(self, spec: StageSpec) -> None:
        self.streams[self.task.remote(self.site, spec)] = spec

    @override
    def news(self, seconds: float) -> Iterator[tuple[StageSpec, Message]]:
        if not self.streams:  # no machine is left; one may join
            time.sleep(seconds)
            return
        ray.wait(list(self.streams), timeout=seconds)
        there, _ = ray.wait(list(self.streams), num_returns=len(self.streams), timeout=0)
        for stream in there:
            spec, message = self.streams[stream], self._next(stream)
            if not isinstance(message, Tick):
                del self.streams[stream]
            yield spec, message

    def _next(self, stream: Any) -> Message:  # noqa: ANN401 - Ray's
        """What a stage says; an error, if a machine refuses to work for this command."""
        try:
            said: Message = ray.get(next(stream))
        except RayTaskError as error:
            if isinstance(error.cause, BenchmarkError):
                raise RecordError(str(error.cause)) from error
            return Failure("failed", f"{type(error.cause).__name__}: {error.cause}")
        except RayError as error:
            reason = str(error).partition("\n")[0]
            return Failure("failed", f"its place in the cluster was lost: {reason}")
        return said

    @override
    def stop(self) -> None:
        for stream in self.streams:
            ray.cancel(stream, force=True)
        self.streams.clear()

    @contextmanager
    @override
    def connected(self) -> Iterator[None]:
        """A connection to the cluster, if there is one, and what its machines have to know."""
        cache = self.context.cache
        cache.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.NamedTemporaryFile(dir=cache, prefix=".shared-") as mark,
            _connected(self.settings.address),
        ):
            site = Site(
                context=self.context,
                folder=Path.cwd(),
                mark=Path(mark.name).resolve(),
                path=[str(Path(entry).resolve()) for entry in sys.path],
                settings=self.settings,
                train=self.train,
            )
            self.site = ray.put(site)
            yield


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Stay connected to a cluster within the block; one that is started here ends with it."""
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
