"""Where a stage runs, and the signs of life that it gives; nothing here changes its result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.data.corpora import CorpusConfig
from benchmark.model.cost import Position

TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Tick:
    """A sign of life from a stage."""

    stage: str
    position: Position
    bpb: float | None
    """The newest evaluation, if there is one."""


def unobserved(_: Tick) -> None:
    """Default callback: does nothing."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a stage runs; nothing here changes its result."""

    corpus: CorpusConfig
    cache: Path
    checkpoint_seconds: float = 60.0
    """Least time between two saves of an unfinished stage; 0 saves after every step."""

    n_sharing: int = 1
    """Stages that share the stage's GPU, itself included; its times are marked with it."""

    on_tick: Callable[[Tick], None] = unobserved
