"""The state of a stage on disk, and the store of stages in the cache."""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from benchmark.base.errors import RecordError
from benchmark.base.paths import display_path
from benchmark.growth.operator import Moments, Weights
from benchmark.growth.schedule import Point
from benchmark.model.cost import Position
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.plan.run import Run
from benchmark.plan.spec import StageResult, StageSpec
from benchmark.records.events import atomic_write_text


@dataclass(frozen=True, kw_only=True)
class State:
    """A point in a stage from which training goes on."""

    model: Transformer
    moments: Moments
    is_new: Weights
    """Entries that the latest growth added; empty unless a re-warm-up needs them."""

    position: Position
    start: Position
    """Where the stage's first step was taken, after the growth that may open it."""

    grown_at: float = 0.0
    """FLOPs spent at the latest growth."""

    log_bytes: int = 0
    """How much of the stage's event log belongs to this state."""

    points: tuple[Point, ...] = ()
    """Evaluations of the stage so far."""

    loss_sum: float = 0.0
    """Training losses since the last record of them, and how many."""

    loss_count: int = 0


def save_state(path: Path, state: State) -> None:
    """Write a state atomically as one safetensors file; no pickles."""
    write_packed(path, *pack(state))


def pack(state: State, *, copy: bool = False) -> tuple[Weights, dict[str, str]]:
    """Tensors of a state in main memory, by group and name, and all else as text.

    Args:
        state: what to save.
        copy: whether the tensors are to stay as they are now, while training goes on.
    """
    groups = {
        "weights": state.model.state_dict(),
        "is_new": state.is_new,
        **{f"optimizer.{kind}": named for kind, named in state.moments.tensors.items()},
    }
    tensors = {
        f"{group}/{name}": tensor.detach().to("cpu", copy=copy).contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    header = {
        "model": asdict(state.model.config),
        "step": state.moments.step,
        "powers": dict(state.moments.powers),
        "position": asdict(state.position),
        "start": asdict(state.start),
        "grown_at": state.grown_at,
        "log_bytes": state.log_bytes,
        "points": [asdict(point) for point in state.points],
        "loss_sum": state.loss_sum,
        "loss_count": state.loss_count,
    }
    return tensors, {"state": json.dumps(header)}


def write_packed(path: Path, tensors: Weights, metadata: dict[str, str]) -> None:
    """Write what `pack` returns, atomically."""
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, metadata=metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # of a full disk it would take what is left


def load_state(path: Path, model_class: type[Transformer], device: str | torch.device) -> State:
    """Read a state written by `save_state`.

    Raises:
        RecordError: the file is damaged.
    """
    with _damage(path), safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["state"])
        kinds = {kind: f"optimizer.{kind}" for kind in header["powers"]}
        groups: dict[str, Weights] = {n: {} for n in ("weights", "is_new", *kinds.values())}
        for key in list(file.keys()):
            group, _, name = key.partition("/")
            groups[group][name] = file.get_tensor(key).to(device)
    model = model_class(ModelConfig(**header["model"])).to(device)
    model.load_state_dict(groups["weights"])
    return State(
        model=model,
        moments=Moments(
            {kind: groups[group] for kind, group in kinds.items()},
            header["step"],
            header["powers"],
        ),
        is_new=groups["is_new"],
        position=Position(**header["position"]),
        start=Position(**header["start"]),
        grown_at=header["grown_at"],
        log_bytes=header["log_bytes"],
        points=tuple(Point(**point) for point in header["points"]),
        loss_sum=header["loss_sum"],
        loss_count=header["loss_count"],
    )


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Raise one error for all that reading a damaged file can raise."""
    try:
        yield
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{display_path(path)}: damaged; delete the folder {display_path(path.parent)} "
            "and run again"
        ) from error


class StageStore:
    """Stages on disk, by id: specification, events, checkpoint, and the result once finished.

    Where checkpoints take too much room, those used longest ago are deleted; the rest is small.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stage: str) -> Path:
        """Folder of a stage."""
        return self.root / "stages" / stage

    def events(self, stage: str) -> Path:
        """Records of a finished stage."""
        return self.folder(stage) / "events.jsonl"

    def checkpoint(self, stage: str) -> Path:
        """Where the last state of a finished stage is, unless it was deleted for room."""
        return self.folder(stage) / "checkpoint.safetensors"

    def take(self, stage: str) -> Path:
        """The checkpoint of a stage; its time of use is set, for `evict`.

        Raises:
            RecordError: it is not there.
        """
        path = self.checkpoint(stage)
        try:
            os.utime(path)
        except OSError as error:
            raise RecordError(
                f"{display_path(path)}: gone; run again to train the stage anew"
            ) from error
        return path

    def finished(self, run: Run) -> list[tuple[StageSpec, StageResult]]:
        """The stages of a run that have a result, in order."""
        done: list[tuple[StageSpec, StageResult]] = []
        while (spec := run.next_stage(done)) is not None:
            result = self.result(spec.id)
            if result is None:
                break
            done.append((spec, result))
            if result.status != "done":
                break
        return done

    def usable(self, run: Run) -> list[tuple[StageSpec, StageResult]]:
        """The finished stages that a run can go on from; all of them if it has ended.

        Otherwise those at its end that have lost their checkpoint are left out.
        """
        done = self.finished(run)
        if done and done[-1][1].status == "done" and run.next_stage(done) is not None:
            while done and not self.checkpoint(done[-1][0].id).is_file():
                done.pop()
        return done

    def evict(self, limit: float, needed: Collection[str]) -> list[str]:
        """Delete checkpoints, those first that were used longest ago, until the rest fits.

        Args:
            limit: bytes that all checkpoints of finished stages may take.
            needed: stages whose checkpoints stay, whatever they take.

        Returns:
            Ids of the stages whose checkpoints are gone.
        """
        found = list[tuple[Path, os.stat_result]]()
        for path in self.root.glob("stages/*/checkpoint.safetensors"):
            with suppress(FileNotFoundError):  # another command has deleted it meanwhile
                found.append((path, path.stat()))
        total = sum(stat.st_size for _, stat in found)
        gone: list[str] = []
        for path, stat in sorted(found, key=lambda entry: entry[1].st_mtime_ns):
            if total <= limit:
                break
            if path.parent.name not in needed:
                path.unlink(missing_ok=True)
                total -= stat.st_size
                gone.append(path.parent.name)
        return gone

    def result(self, stage: str) -> StageResult | None:
        """What a finished stage left; None if there is nothing, or its events are damaged."""
        path, events = self.folder(stage) / "result.json", self.events(stage)
        if not path.is_file():
            return None
        with _damage(path):
            raw = json.loads(path.read_text())
            points = tuple(Point(**point) for point in raw["points"])
            result = StageResult(**raw | {"end": Position(**raw["end"]), "points": points})
        n_bytes = events.stat().st_size if events.is_file() else 0
        return result if n_bytes == result.log_bytes else None

    def write_result(self, stage: str, result: StageResult) -> None:
        """Mark a stage as finished."""
        atomic_write_text(self.folder(stage) / "result.json", json.dumps(asdict(result)))
