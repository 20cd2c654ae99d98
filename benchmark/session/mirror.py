"""A copy of the records, as they come in, for TensorBoard or Weights & Biases; never the record.

Every run has a copy of its own, with the stages that it shares; the axis is FLOPs. Each command
writes the copies of its runs anew, from the first record on. A logger that raises ends
its own copies, and nothing else.
"""

import importlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from benchmark.base.errors import ConfigError
from benchmark.executors.track import Track
from benchmark.plan.run import Run
from benchmark.records.events import Event, read_events
from benchmark.stage.checkpoint import StageStore

KINDS = ("train", "evaluation", "growth", "final")
NEEDS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
"""The module that each logger needs."""


def open_logger(name: str, run: Run, folder: Path) -> Logger:
    """A new copy of a run: files in `folder`/METHOD/SEED, or a run of the project "growbench".

    WANDB_* variables say where that is.
    """
    if name == "tensorboard":
        seed = str(run.seed)
        shutil.rmtree(folder / run.method.name / seed, ignore_errors=True)
        logger: Logger = TensorBoardLogger(  # its thread outlives a change of folder
            folder.absolute(), name=run.method.name, version=seed, default_hp_metric=False
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        experiment = importlib.import_module(NEEDS[name]).init(
            project="growbench",
            group=run.suite.name,
            name=f"{run.method.name} seed {run.seed}",
            dir=folder,
            reinit="create_new",
        )
        logger = WandbLogger(experiment=experiment)
    logger.log_hyperparams(run.config())
    return logger


@dataclass
class _Copy:
    """How much of a run is copied."""

    logger: Logger
    n_stages: int = 0
    """Stages of which nothing more will come."""

    n_events: int = 0
    """Records of the stage after those."""


class Mirror:
    """Copies the records of runs while they train.

    Args:
        logger: one of `NEEDS`.
        folder: where copies go that are files, as METHOD/SEED.
        store: holds the stages.

    Raises:
        ConfigError: the package that this needs is not installed.
    """

    def __init__(self, logger: str, folder: Path, store: StageStore) -> None:
        self.logger, self.has_failed, self.folder, self.store = logger, False, folder, store
        try:
            importlib.import_module(NEEDS[logger])
        except ImportError as error:
            raise ConfigError(
                f"run.logger={logger} needs a package that is not installed: "
                f"pip install 'growbench[{logger}]'"
            ) from error
        self.copies: dict[str, _Copy] = {}
        self.closed = set[str]()

    def update(self, tracks: Iterable[Track]) -> None:
        """Copy what is new, unless the logger has failed before."""
        with self._contained():
            for track in tracks:
                is_open = track.run.id not in self.closed and not self.has_failed
                if is_open and (track.done or track.tick):
                    self._follow(track)

    def close(self) -> None:
        """Close the copies of runs that have not ended."""
        for copy in self.copies.values():
            with self._contained():
                _close(copy.logger)
        self.copies.clear()

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Turn the first error of a logger into one line on stderr, and pass over all others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it raises, training goes on
            if not self.has_failed:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                sys.stderr.write(
                    f"growbench: run.logger={self.logger} fails and copies nothing more, the "
                    f"records go on: {reason}\n"
                )
            self.has_failed = True

    def _follow(self, track: Track) -> None:
        run = track.run
        copy = self.copies.get(run.id)
        if copy is None:
            copy = self.copies[run.id] = _Copy(open_logger(self.logger, run, self.folder))
        for stage in [spec.id for spec, _ in track.done][copy.n_stages :]:
            self._copy(copy, self.store.folder(stage) / "events.jsonl")
            copy.n_stages, copy.n_events = copy.n_stages + 1, 0
        if track.waiting_for is None:
            _close(copy.logger)
            self.closed.add(run.id)
            del self.copies[run.id]
        elif track.tick is not None:
            self._copy(copy, self.store.folder(track.waiting_for.id) / "progress.jsonl")

    def _copy(self, copy: _Copy, log: Path) -> None:
        """Copy the records of a stage that are not copied yet.

        A stage that goes on from a checkpoint writes the same records again: they are not new.
        """
        events = [e for e in read_events(log) if e["kind"] in KINDS] if log.is_file() else []
        for event in events[copy.n_events :]:
            copy.logger.log_metrics(_scalars(event), step=round(event["flops"]))
        copy.n_events = max(copy.n_events, len(events))


def _scalars(event: Event) -> dict[str, float]:
    """What a record adds to curves; its kind is one of `KINDS`."""
    if event["kind"] == "train":
        return {"train/nats_per_byte": event["loss"], "train/learning_rate": event["lr"]}
    if event["kind"] == "evaluation":
        return {"held_out/bpb": event["bpb"]}
    if event["kind"] == "final":
        return {f"final/{event['split']}_bpb": event["bpb"]}
    return {f"growth/{name}": event[name] for name in ("bpb_before", "bpb_after", "n_params_to")}


def _close(logger: Logger) -> None:
    """Say that nothing more will come."""
    logger.finalize("success")
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
