"""What runs on the machines of a cluster: an actor that keeps one worker process.

It answers calls and trains nothing itself: a stage is trained by the same process, made the same
way, as on a single machine.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import ray
from filelock import FileLock
from numpy.typing import NDArray

from benchmark.base.digest import code, science
from benchmark.base.errors import RecordError
from benchmark.base.plugins import import_class
from benchmark.executors.executor import Limits, Train
from benchmark.executors.track import Failure
from benchmark.executors.transfer import CHECKPOINT, RECORDS, Files, pack, unpack
from benchmark.executors.worker import Worker
from benchmark.model.transformer import Transformer
from benchmark.plan.spec import RELEASES, StageResult, StageSpec
from benchmark.records.events import atomic_write
from benchmark.stage.checkpoint import StageStore
from benchmark.stage.context import Context, Tick
from benchmark.training.baseline import Baseline

LISTEN_SECONDS = 1.0
"""How long a call for news may wait for some."""

Message = Tick | StageResult | Failure
Text = NDArray[np.uint8]


@dataclass(frozen=True)
class Answer:
    """What a call brings back."""

    messages: Sequence[Message]
    files: Files
    """What the stage leaves, once it is over; nothing where a folder is shared."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the command tells every machine of the cluster."""

    context: Context
    """Where stages run there."""

    shares_folder: bool
    """Whether that is the command's own folder."""

    folder: Path
    """The command's working folder."""

    mark: Path
    """A file that lies in the command's cache while it runs."""

    path: Sequence[str]
    """Where the command finds modules."""

    versions: dict[str, str]
    """What the command's `versions` are."""

    limits: Limits
    train: Train


class StageActor:
    """Keeps a worker process on its machine, and passes on what that says.

    Args:
        site: what to work with.
        text: the whole corpus, uint8 (N,), unless the folder is shared.
    """

    def __init__(self, site: Site, text: Text | None) -> None:
        self.site, self.text = site, text

    def start(self) -> None:
        """Come up.

        Raises:
            RecordError: what would be trained here is not what the command means.
        """
        site = self.site
        if versions() != site.versions:
            raise RecordError(
                f"a machine of the cluster has other versions than the command's: {versions()} "
                f"instead of {site.versions}; install the same on all"
            )
        if site.shares_folder:
            self._enter_shared_folder()
        else:
            self._place_corpus()
        _leave_ray_behind(site.path)
        self.worker = Worker(site.context, site.limits.timeout, train=site.train)

    def begin(self, spec: StageSpec, code_there: str, needed: Files) -> Answer:
        """Start on a stage, and listen for the first time.

        Raises:
            RecordError: the method has other code here.
        """
        unpack(self.site.context.cache, needed)
        if code_of(spec) != code_there:
            raise RecordError(
                f"a machine of the cluster has other code of {spec.baseline} than the command's"
            )
        self.worker.begin(spec)
        return self.news()

    def news(self) -> Answer:
        """What the worker says within a second, and what the stage leaves once it is over."""
        wait([self.worker.pipe], timeout=LISTEN_SECONDS)
        messages, spec = list(self.worker.news()), self.worker.spec
        if self.site.shares_folder or spec is None or not is_over(messages):
            return Answer(messages, {})
        store = StageStore(self.site.context.cache)
        left = pack(store.root, spec.id, (CHECKPOINT, *RECORDS))
        store.evict(self.site.limits.cache_bytes, {spec.id})
        return Answer(messages, left)

    def _enter_shared_folder(self) -> None:
        if self.site.folder.is_dir():
            os.chdir(self.site.folder)
        if not self.site.mark.is_file():
            raise RecordError(
                "a machine of the cluster does not see the command's run.cache: share it and the "
                "working folder, or set run.node_cache to a folder of each machine"
            )

    def _place_corpus(self) -> None:
        path = Path(self.site.context.corpus.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file() and self.text is not None:
                atomic_write(path, self.text.tobytes())


def _leave_ray_behind(path: Sequence[str]) -> None:
    """Let processes that start from here find what the command finds, and nothing of Ray.

    Ray brings packages of its own, which come before those that are installed; and a process that
    starts from here would load the main module again, which is Ray's.
    """
    own = Path(ray.__file__).parent
    everything = dict.fromkeys([*sys.path, *path])
    sys.path[:] = [entry for entry in everything if not Path(entry).is_relative_to(own)]
    vars(sys.modules["__main__"]).pop("__file__", None)


def is_over(messages: Sequence[Message]) -> bool:
    """Whether the last word on a stage is among these."""
    return any(not isinstance(message, Tick) for message in messages)


def versions() -> dict[str, str]:
    """What all machines must have alike, or their numbers would not be of one experiment."""
    return {"growbench's science modules": science(), **RELEASES}


def code_of(spec: StageSpec) -> str:
    """Digest of the method's code as it is on this machine."""
    classes: tuple[type[Any], ...] = (
        import_class(spec.baseline, Baseline, "baseline"),
        import_class(spec.model_class, Transformer, "model_class"),
    )
    return code(*classes)
