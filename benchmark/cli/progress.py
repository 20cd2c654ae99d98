"""How far a suite has come in FLOPs, each distinct stage once, and how long the rest takes.

A model trains at the rate that its stages have had, in this command or when they were trained
before; a model without any, at that of the model whose step costs most nearly as much.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmark.executors.track import Track
from benchmark.model.cost import Position
from benchmark.plan.run import Run
from benchmark.plan.spec import Done
from benchmark.session.outlook import predict


@dataclass(frozen=True)
class Piece:
    """The work of a stage, or what is left of it."""

    stage: str
    step_flops: float
    """Of one optimizer step: tells models of different sizes apart."""

    flops: float
    seconds: float
    """What the work took; 0 while it lies ahead."""


class Progress:
    """Of the runs of a suite; what is not known yet is predicted."""

    def __init__(self, runs: Sequence[Run], clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.predicted = {run.id: _pieces(run.predicted()) for run in runs}
        self.starts: dict[str, tuple[float, Position]] = {}  # of stages, when they are first seen
        self.most_at_work = 1
        self.executed = self.total = 0.0

    def update(self, tracks: Sequence[Track]) -> None:
        """Take in how things are now."""
        self.at_work = {track.tick.stage: track for track in tracks if track.tick is not None}
        for stage, track in self.at_work.items():
            self.starts.setdefault(stage, (self.clock(), track.position))
        self.most_at_work = max(self.most_at_work, len(self.at_work))
        self.done = {p.stage: p for track in tracks for p in _pieces(track.done)}
        self.paths = [
            [piece for piece in self._left(track) if piece.stage not in self.done]
            for track in tracks
        ]
        gained = sum(track.position.flops - _spent(track) for track in self.at_work.values())
        self.executed = gained + sum(piece.flops for piece in self.done.values())
        left = {piece.stage: piece.flops for path in self.paths for piece in path}
        self.total = self.executed + sum(left.values())

    @property
    def seconds_left(self) -> float | None:
        """Until all runs have ended; None while no stage has a rate.

        It is the workers' fair share of the work or, if that is longer, the longest run.
        """
        rates = self._rates()
        if not rates:
            return None
        paths = ([(p.stage, p.flops / _nearest(rates, p.step_flops)) for p in path]
                 for path in self.paths)  # fmt: skip
        return predict(paths, self.most_at_work)

    def tokens_per_second(self, track: Track) -> float:
        """Rate of the stage that a run is at, since it was first seen; nan before there is one."""
        if track.tick is None or track.tick.stage not in self.starts:
            return math.nan
        clock, position = self.starts[track.tick.stage]
        tokens, seconds = track.position.tokens - position.tokens, self.clock() - clock
        return tokens / seconds if tokens and seconds else math.nan

    def _left(self, track: Track) -> list[Piece]:
        """Stages that a run has ahead, what is left of the first; as one if they are not known."""
        if track.waiting_for is None:
            return []
        if track.run.id not in self.predicted:  # at settings that a tuning has chosen
            self.predicted[track.run.id] = _pieces(track.run.predicted())
        rest = self.predicted[track.run.id][len(track.done) :]
        if not rest or rest[0].stage != track.waiting_for.id:  # grew when it was not predicted to
            flops = track.run.budget - _spent(track)
            rest = [Piece(track.run.id, track.waiting_for.step_flops, flops, 0.0)]
        gained = track.position.flops - _spent(track)
        return [replace(rest[0], flops=max(0.0, rest[0].flops - gained)), *rest[1:]]

    def _rates(self) -> dict[float, float]:
        """FLOPs per second by the FLOPs of a step."""
        flops, seconds = defaultdict[float, float](float), defaultdict[float, float](float)
        for piece in self.done.values():
            if piece.seconds:
                flops[piece.step_flops] += piece.flops
                seconds[piece.step_flops] += piece.seconds
        for stage, track in self.at_work.items():
            clock, position = self.starts[stage]
            assert track.waiting_for is not None
            flops[track.waiting_for.step_flops] += track.position.flops - position.flops
            seconds[track.waiting_for.step_flops] += self.clock() - clock
        return {size: flops[size] / seconds[size] for size in flops if flops[size] > 0}


def _pieces(stages: Done) -> list[Piece]:
    ends = [0.0, *(result.end.flops for _, result in stages)]
    return [
        Piece(spec.id, spec.step_flops, end - start, result.executed_seconds)
        for (spec, result), (start, end) in zip(stages, pairwise(ends), strict=True)
    ]


def _spent(track: Track) -> float:
    """FLOPs of the stages that a run has finished."""
    return track.done[-1][1].end.flops if track.done else 0.0


def _nearest(rates: dict[float, float], size: float) -> float:
    return rates[min(rates, key=lambda other: abs(math.log(other / size)))]
