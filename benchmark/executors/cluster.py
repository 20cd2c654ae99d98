"""Runs a suite on a Ray cluster: one actor for each core or GPU, with a process to train in.

What a stage needs and leaves lies in a folder that all machines share, or travels with the calls.
"""

import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import torch
from typing_extensions import override

from benchmark.data.corpora import Corpus, load
from benchmark.executors import connection
from benchmark.executors.actor import Site, Text, versions
from benchmark.executors.executor import Executor, Limits, Train
from benchmark.executors.ray_worker import Actor, RayWorker
from benchmark.stage.context import Context
from benchmark.stage.execute import execute

COUNT_SECONDS = 1.0
"""How long the size of the cluster is taken to stay what it was."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which cluster, and what of it a stage takes."""

    address: str = ""
    """HOST:PORT or auto; empty for what RAY_ADDRESS says, or else a cluster of this machine."""

    cpus: int = 1
    """Cores of each stage."""

    gpus: int = 0
    """GPUs of each stage."""

    workers: int = 0
    """Most stages that run at once; 0 for as many as there are cores, or GPUs, for."""

    node_cache: Path | None = None
    """Folder of each machine to train in; None if all share the working folder."""


class RayExecutor(Executor[RayWorker]):
    """Executes stages in a Ray cluster, each on cores, and GPUs, of its own.

    Args:
        context: where stages are gathered.
        limits: what stages may take; the loss of a machine ends an attempt.
        place: which cluster, and how it is used.
        train: what is done with a stage.
    """

    site: Site
    text: object
    """The corpus in Ray's store, or None if a folder is shared; both are set once connected."""

    def __init__(
        self,
        context: Context,
        limits: Limits | None = None,
        *,
        place: Place | None = None,
        train: Train = execute,
    ) -> None:
        super().__init__(context, limits, train)
        self.place = place or Place()
        self.n_found, self.counted = 0, -math.inf

    @property
    @override
    def n_workers(self) -> int:
        if time.monotonic() - self.counted > COUNT_SECONDS:
            there = ray.cluster_resources()
            wanted = {"CPU": self.place.cpus, "GPU": self.place.gpus}
            self.n_found = min(int(there.get(kind, 0) // n) for kind, n in wanted.items() if n)
            self.counted = time.monotonic()
        return min(self.place.workers or self.n_found, self.n_found)

    @override
    def hire(self) -> RayWorker:
        cache = self.context.cache if self.place.node_cache is not None else None
        actor = Actor.options(num_cpus=self.place.cpus, num_gpus=self.place.gpus)
        return RayWorker(actor.remote(self.site, self.text), cache)

    @override
    def wait(self, seconds: float) -> list[RayWorker]:
        asked = {worker.reply: worker for worker in self.workers if worker.reply is not None}
        if not asked:
            time.sleep(seconds)
            return []
        ray.wait(list(asked), num_returns=1, timeout=seconds)
        there, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        return [asked[reply] for reply in there]

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
            connection.connected(self.place.address),
        ):
            self._prepare(Path(mark.name).resolve())
            yield

    def _prepare(self, mark: Path) -> None:
        """Say what the machines have to know; in caches of their own, the text is a file."""
        context, self.text, nodes = self.context, None, self.place.node_cache
        if nodes is not None:
            corpus = load(context.corpus, context.cache / "corpora")
            file = nodes / "corpora" / f"{corpus.sha256}.bin"
            text = replace(
                context.corpus, kind="file", path=str(file), size=0, sha256=corpus.sha256
            )
            context, self.text = replace(context, cache=nodes, corpus=text), ray.put(_text(corpus))
        self.site = Site(
            context=context,
            shares_folder=nodes is None,
            folder=Path.cwd(),
            mark=mark,
            path=[str(Path(entry).resolve()) for entry in sys.path],
            versions=versions(),
            limits=self.limits,
            train=self.train,
        )


def _text(corpus: Corpus) -> Text:
    return torch.cat([corpus.train, corpus.val, corpus.test]).numpy()
