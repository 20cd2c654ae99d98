"""Runs a suite on a Ray cluster: a task of Ray's for each stage, on a core, and a GPU, of its own.

What a stage needs and leaves lies in a folder that all machines share, or travels as Ray's objects.
Ray finds the machine, tells of signs of life as they are yielded, and notices what is lost. It
tries nothing again by itself: attempts are counted, limited and told in one place (`executor.py`).
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from typing_extensions import override

from benchmark.base.errors import BenchmarkError, RecordError
from benchmark.data.corpora import load
from benchmark.executors import connection
from benchmark.executors.executor import Executor, Message, Train
from benchmark.executors.remote import Site, run_stage
from benchmark.executors.track import Failure
from benchmark.executors.transfer import CHECKPOINT, RECORDS, Files, pack, unpack
from benchmark.plan.config import ExecutionConfig
from benchmark.plan.spec import StageSpec
from benchmark.stage.context import Context, Tick
from benchmark.stage.execute import execute

_TASK: Any = ray.remote(num_returns="streaming", max_retries=0)(run_stage)


class RayExecutor(Executor):
    """Executes stages in a Ray cluster, each on a core, or on a GPU too, of its own.

    Args:
        context: where stages are gathered.
        settings: which cluster, what of it a stage takes, and how often stages are tried again;
            the loss of a machine ends an attempt.
        n_gpus: of each stage, 0 or 1.
        train: what is done with a stage.
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
        self.wanted = {"CPU": 1, "GPU": n_gpus}
        self.streams: dict[Any, StageSpec] = {}

    @property
    @override
    def n_slots(self) -> int:
        there = ray.cluster_resources()
        n_found = min(int(there.get(kind, 0) // n) for kind, n in self.wanted.items() if n)
        n = min(self.settings.workers or n_found, n_found)
        return n + (0 < n == n_found)  # one more waits in Ray, so that no slot waits for its stage

    @override
    def begin(self, spec: StageSpec) -> None:
        needed: Files = {}
        if self.settings.node_cache:
            needed = pack(self.context.cache, spec.id, RECORDS)
            needed |= pack(self.context.cache, spec.parent or "", [CHECKPOINT])
        self.streams[self.task.remote(self.site, spec, needed)] = spec

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
        """What a stage says; files are in place before anybody learns that it is over.

        Raises:
            RecordError: a machine refuses to work for this command.
        """
        try:
            said = ray.get(next(stream))
        except RayTaskError as error:
            if isinstance(error.cause, BenchmarkError):
                raise RecordError(str(error.cause)) from error
            return Failure("failed", f"{type(error.cause).__name__}: {error.cause}")
        except RayError as error:
            reason = str(error).partition("\n")[0]
            return Failure("failed", f"its place in the cluster was lost: {reason}")
        if isinstance(said, Tick):
            return said
        end, files = said
        unpack(self.context.cache, files)
        return end

    @override
    def stop(self) -> None:
        for stream in self.streams:
            ray.cancel(stream, force=True)
        self.streams.clear()

    @contextmanager
    @override
    def connected(self) -> Iterator[None]:
        """A connection to the cluster, and what its machines have to know.

        Raises:
            ConfigError: there is no such cluster, or it is of another release.
        """
        cache = self.context.cache
        cache.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.NamedTemporaryFile(dir=cache, prefix=".shared-") as mark,
            connection.connected(self.settings.address),
        ):
            self.site = ray.put(self._site(Path(mark.name).resolve()))
            yield

    def _site(self, mark: Path) -> Site:
        """What the machines have to know; in caches of their own, the text is a file."""
        context, text = self.context, None
        if self.settings.node_cache:
            cache = Path(self.settings.node_cache).expanduser()
            corpus = load(context.corpus, context.cache / "corpora")
            text = ray.put(torch.cat([corpus.train, corpus.val, corpus.test]).numpy())
            path = str(cache / "corpora" / f"{corpus.sha256}.bin")
            there = replace(context.corpus, kind="file", path=path, size=0, sha256=corpus.sha256)
            context = replace(context, cache=cache, corpus=there)
        return Site(
            context=context,
            folder=Path.cwd(),
            mark=mark,
            text=text,
            path=[str(Path(entry).resolve()) for entry in sys.path],
            settings=self.settings,
            train=self.train,
        )
