"""What a person sees of a suite at work: a live table on a terminal, plain lines elsewhere."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from benchmark.executors.track import Track
from benchmark.plan.run import Run
from benchmark.plan.suite import stage_flops
from benchmark.records.events import FINISHED, STOPPED
from benchmark.report import formats
from benchmark.stage.checkpoint import StageStore

STYLES = {"done": "green", "running": "cyan", "waiting": "dim", **dict.fromkeys(STOPPED, "red")}
HEARTBEAT_SECONDS = 30.0
BAR_WIDTH = 16
FRAME_LINES = 4
"""Lines of the live table that are not rows."""


class Work:
    """FLOPs that a suite executes, each distinct stage once; what is not known is predicted."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.predicted = {run.id: stage_flops(run.predicted()) for run in runs}

    def measure(self, tracks: Sequence[Track]) -> tuple[float, float]:
        """FLOPs executed so far, and in all."""
        executed: dict[str, float] = {}
        total: dict[str, float] = {}
        for track in tracks:
            known = stage_flops(track.done)
            executed.update(known)
            if track.waiting_for is None:
                continue
            spent = track.done[-1][1].end.flops if track.done else 0.0
            if track.tick is not None:
                executed[track.waiting_for.id] = track.position.flops - spent
            rest = self._predicted(track.run)[len(known) :]
            if [stage for stage, _ in rest[:1]] == [track.waiting_for.id]:
                total.update(rest)
            else:  # a schedule that watches the loss took another course than predicted
                total[track.run.id] = track.run.budget - spent
        return sum(executed.values()), sum((executed | total).values())

    def _predicted(self, run: Run) -> list[tuple[str, float]]:
        """Stages and FLOPs of a run; those at tuned settings are known only later."""
        if run.id not in self.predicted:
            self.predicted[run.id] = stage_flops(run.predicted())
        return self.predicted[run.id]


class Display(ExitStack, ABC):
    """Shows the runs of a suite while they are on their way; a context manager."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        super().__init__()
        self.console, self.work = console, Work(runs)
        self.started = time.monotonic()
        self.executed_before: float | None = None

    @abstractmethod
    def show(self, tracks: Sequence[Track]) -> None:
        """Show how things are now; called a few times a second, and once at the end."""

    def progress(self, tracks: Sequence[Track]) -> str:
        """Share of the suite's FLOPs that is executed, and the time left at this command's pace."""
        executed, total = self.work.measure(tracks)
        if self.executed_before is None:
            self.executed_before = executed
        elapsed, gained = time.monotonic() - self.started, executed - self.executed_before
        text = f"{formats.percent(executed / total)} of {formats.flops(total)} FLOPs"
        text += f", {formats.seconds(elapsed)} elapsed"
        if gained > 0 and executed < total:
            text += f", about {formats.seconds(elapsed * (total - executed) / gained)} left"
        return text


class Lines(Display):
    """One line for every run that ends, and a sign of life between them."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        super().__init__(console, runs)
        self.told: set[str] | None = None
        self.last_line = self.started

    @override
    def show(self, tracks: Sequence[Track]) -> None:
        ended = [track for track in tracks if track.status in FINISHED]
        if self.told is None:
            self.told = {track.run.id for track in ended}
            self._say(
                f"{len(ended)} of {len(tracks)} runs were finished before; {self.progress(tracks)}"
            )
        for track in ended:
            if track.run.id not in self.told:
                self.told.add(track.run.id)
                self._say(f"{len(self.told)} of {len(tracks)} runs: {_sentence(track)}")
        if time.monotonic() - self.last_line >= HEARTBEAT_SECONDS:
            self._say(self.progress(tracks))

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)
        self.last_line = time.monotonic()


class LiveTable(Display):
    """One row per run, repainted in place; a table too tall for the terminal shows what moves."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        super().__init__(console, runs)
        self.tracks: Sequence[Track] = ()
        self.live = self.enter_context(Live(console=console, auto_refresh=False))
        self.callback(self._finish)

    @override
    def show(self, tracks: Sequence[Track]) -> None:
        self.tracks = tracks
        n_rows = max(1, self.console.size.height - FRAME_LINES)
        self.live.update(self._picture(n_rows), refresh=True)

    def _finish(self) -> None:
        """Leave a table of all runs behind."""
        if self.tracks:
            self.live.update(self._picture(len(self.tracks)))

    def _picture(self, n_rows: int) -> Group:
        ended = sum(track.status in FINISHED for track in self.tracks)
        line = f"{ended} of {len(self.tracks)} runs ended; {self.progress(self.tracks)}"
        if n_rows < len(self.tracks):
            line += f"; {len(self.tracks) - n_rows} runs not shown"
        return Group(self.table(self.tracks, n_rows), line)

    def table(self, tracks: Sequence[Track], n_rows: int) -> Table:
        """At most `n_rows` runs in display order, those that move and those in trouble first."""
        urgency = ("running", *STOPPED, "waiting", "done")
        by_urgency = sorted(tracks, key=lambda track: urgency.index(track.status))
        chosen = {track.run.id for track in by_urgency[:n_rows]}
        table = Table(box=None, header_style="bold")
        for name in ("method", "seed", "status", "progress", "", "bpb", "FLOPs"):
            table.add_column(name, justify="left" if name in ("method", "status") else "right")
        for track in tracks:
            if track.run.id in chosen:
                table.add_row(*_row(track))
        return table


def display(console: Console, runs: Sequence[Run]) -> Display:
    """The display that suits the console."""
    return (LiveTable if console.is_terminal else Lines)(console, runs)


def verdicts(results: Path) -> Table:
    """The comparison at C*, from the tables of a report."""
    summary = pd.read_csv(results / "tables" / "summary.csv", keep_default_na=False, na_values=[""])
    names = ("method", "role", "test bpb", "minus scratch", "minus best fixed", "verdict",
             "parameters", "FLOPs", "time", "status")  # fmt: skip
    table = Table(box=None, header_style="bold")
    for name in names:
        is_text = name in ("method", "role", "verdict", "status")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name == "method")
    for row in summary.to_dict("records"):
        table.add_row(
            str(row["method"]),
            str(row["role"]),
            formats.bpb(row["test_bpb"]),
            formats.difference(row["vs_scratch"]),
            formats.difference(row["vs_best_fixed"]),
            row["verdict"] if isinstance(row["verdict"], str) else "",
            formats.count(row["n_params"]),
            formats.flops(row["flops"]),
            formats.seconds(row["seconds"]),
            str(row["status"]),
        )
    return table


def troubles(tracks: Sequence[Track], cache: Path) -> Iterator[str]:
    """One line for every run that failed or diverged."""
    for track in tracks:
        if track.error is None:
            continue
        line = f"{track.run.method.name} seed {track.run.seed} {track.status}: {track.error}"
        stage = track.failed_at
        trace = StageStore(cache).folder(stage.id) / "traceback.txt" if stage else None
        yield f"{line} (see {trace})" if trace and trace.is_file() else line


def _row(track: Track) -> list[Text | ProgressBar | str]:
    flops = track.position.flops
    share = 1.0 if track.status == "done" else flops / track.run.budget
    return [
        track.run.method.name,
        str(track.run.seed),
        Text(track.status, style=STYLES[track.status]),
        ProgressBar(total=1.0, completed=share, width=BAR_WIDTH),
        f"{100 * share:.0f} %",
        "" if track.bpb is None else formats.bpb(track.bpb),
        formats.flops(flops),
    ]


def _sentence(track: Track) -> str:
    text = f"{track.run.method.name} seed {track.run.seed} {track.status}"
    text += f" at {formats.flops(track.position.flops)} FLOPs"
    if track.bpb is None or not math.isfinite(track.bpb):
        return text
    return f"{text}, {formats.bpb(track.bpb)} bpb on the curve slice"
