"""What a machine of a Ray cluster does for a stage: a task that passes on what a worker says.

The stage is trained by the same process, made the same way, as on a single machine: Ray's own
process has packages, threads and signal handlers that are not the command's. The worker stays with
that process, for the next stage that Ray brings there; it ends with it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from benchmark.base.digest import science
from benchmark.base.errors import RecordError
from benchmark.executors.executor import Message, Train
from benchmark.executors.local import LocalExecutor
from benchmark.plan.config import ExecutionConfig
from benchmark.plan.spec import RELEASES, StageSpec
from benchmark.stage.context import Context, Tick

LISTEN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the command tells every machine of the cluster."""

    context: Context
    folder: Path
    """The command's working folder."""

    mark: Path
    """A file that lies in the command's cache while it runs."""

    path: Sequence[str]
    """Where the command finds modules."""

    settings: ExecutionConfig
    train: Train


_MACHINES: dict[str, LocalExecutor] = {}
"""What trains from this process of Ray's, by the GPUs that Ray lets it see: one at a time."""


def run_stage(site: Site, spec: StageSpec) -> Iterator[Message]:
    """Train a stage; yield its signs of life, and last how it ended.

    Raises:
        RecordError: what would be trained here is not what the command means.
    """
    if (spec.code, spec.releases) != (science(), RELEASES):
        raise RecordError(
            "a machine of the cluster has other code or releases than the command's: growbench "
            f"{science()} with {RELEASES} instead of {spec.code} with {spec.releases}; install the "
            "same on all"
        )
    machine = _machine(site)
    machine.begin(spec)
    while True:
        for _, message in machine.news(LISTEN_SECONDS):
            yield message
            if not isinstance(message, Tick):
                return


def _machine(site: Site) -> LocalExecutor:
    """What trains here, set up for the first stage that comes, or for another GPU."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if gpus not in _MACHINES:
        for other in _MACHINES.values():
            other.stop()
        _MACHINES.clear()
        _leave_ray_behind(site.path)
        if site.folder.is_dir():
            os.chdir(site.folder)
        if not site.mark.is_file():
            raise RecordError(
                "a machine of the cluster does not see the command's run.cache: share it and the "
                "working folder"
            )
        _MACHINES[gpus] = LocalExecutor(site.context, site.settings, 1, train=site.train)
    return _MACHINES[gpus]


def _leave_ray_behind(path: Sequence[str]) -> None:
    """Let processes that start from here find what the command finds, and nothing of Ray.

    Ray brings packages of its own, which come before those that are installed; and a process that
    starts from here would load the main module again, which is Ray's.
    """
    own = Path(ray.__file__).parent
    everything = dict.fromkeys([*sys.path, *path])
    sys.path[:] = [entry for entry in everything if not Path(entry).is_relative_to(own)]
    vars(sys.modules["__main__"]).pop("__file__", None)
