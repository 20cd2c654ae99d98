"""A copy of the records, as they come in, for TensorBoard or Weights & Biases; never the record.

Every run has a copy of its own, with the stages that it shares; the axis is FLOPs. Each command
writes the copies of its runs anew, from the first record on. A logger that raises ends
its own copies, and nothing else.
"""

import importlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.base.errors import ConfigError
from benchmark.executors.track import Track
from benchmark.plan.run import Run
from benchmark.records.events import Event, read_events
from benchmark.stage.checkpoint import StageStore

KINDS = ("train", "evaluation", "growth", "final")


class TensorBoard:
    """Event files that `tensorboard --logdir` shows."""

    module = "torch.utils.tensorboard"

    def __init__(self, run: Run, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        module = importlib.import_module(self.module)
        self.writer = module.SummaryWriter(folder.absolute())  # its thread outlives a chdir
        self.text("configuration", json.dumps(run.config(), indent=1), 0)

    def scalars(self, values: Mapping[str, float], flops: float) -> None:
        """Add points of curves."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, round(flops))

    def text(self, name: str, text: str, flops: float) -> None:
        """Add something that happened."""
        self.writer.add_text(name, text, round(flops))

    def close(self) -> None:
        """Take nothing more."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project "growbench"; WANDB_* variables say where that is."""

    module = "wandb"

    def __init__(self, run: Run, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.run = importlib.import_module(self.module).init(
            project="growbench",
            group=run.suite.name,
            name=f"{run.method.name} seed {run.seed}",
            config=run.config(),
            dir=folder,
            reinit="create_new",
        )
        self.run.define_metric("*", step_metric="flops")

    def scalars(self, values: Mapping[str, float], flops: float) -> None:
        """Add points of curves."""
        self.run.log({**values, "flops": flops})

    def text(self, name: str, text: str, flops: float) -> None:
        """Add something that happened."""
        self.run.summary[f"{name} at {flops:.4g} FLOPs"] = text

    def close(self) -> None:
        """Take nothing more."""
        self.run.finish()


WRITERS: dict[str, type[TensorBoard | WeightsAndBiases]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


@dataclass
class _Copy:
    """How much of a run is copied."""

    writer: TensorBoard | WeightsAndBiases
    n_stages: int = 0
    """Stages of which nothing more will come."""

    n_events: int = 0
    """Records of the stage after those."""


class Mirror:
    """Copies the records of runs while they train.

    Args:
        logger: one of `WRITERS`.
        folder: where copies go that are files, as METHOD/SEED.
        store: holds the stages.

    Raises:
        ConfigError: the package that this needs is not installed.
    """

    def __init__(self, logger: str, folder: Path, store: StageStore) -> None:
        self.logger, self.has_failed = logger, False
        self.writer, self.folder, self.store = WRITERS[logger], folder, store
        try:
            importlib.import_module(self.writer.module)
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
                copy.writer.close()
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
            folder = self.folder / run.method.name / str(run.seed)
            copy = self.copies[run.id] = _Copy(self.writer(run, folder))
        for stage in [spec.id for spec, _ in track.done][copy.n_stages :]:
            self._copy(copy, self.store.folder(stage) / "events.jsonl")
            copy.n_stages, copy.n_events = copy.n_stages + 1, 0
        if track.waiting_for is None:
            copy.writer.close()
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
            for name, value in _scalars(event):
                copy.writer.scalars({name: value}, event["flops"])
            if event["kind"] == "growth":
                copy.writer.text("growth", _sentence(event), event["flops"])
        copy.n_events = max(copy.n_events, len(events))


def _scalars(event: Event) -> Iterator[tuple[str, float]]:
    if event["kind"] == "train":
        yield "train/nats_per_byte", event["loss"]
        yield "train/learning_rate", event["lr"]
    elif event["kind"] == "evaluation":
        yield "held_out/bpb", event["bpb"]
    elif event["kind"] == "final":
        yield f"final/{event['split']}_bpb", event["bpb"]


def _sentence(event: Event) -> str:
    before, after = event["from"], event["to"]
    sizes = [f"{name} {before.get(name)} to {n}" for name, n in after.items()
             if before.get(name) != n]  # fmt: skip
    return (
        f"{event['operator']}: {', '.join(sizes) or 'no size'}; held-out bpb "
        f"{event['bpb_before']:.4f} before, {event['bpb_after']:.4f} after"
    )
