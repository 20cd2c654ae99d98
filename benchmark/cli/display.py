"""What a person sees of a suite: a line for every run that ends, and what is at work."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar

from benchmark.cli.progress import Progress
from benchmark.cli.terminal import BAR_WIDTH, FittedTable
from benchmark.executors.track import PUBLISHED, Track
from benchmark.plan.run import Run
from benchmark.records.events import FINISHED
from benchmark.report import formats
from benchmark.stage.checkpoint import StageStore

HEARTBEAT_SECONDS = 30.0
FRAME_LINES = 4
"""Lines of the live table that are not rows."""


class Display(ExitStack):
    """One line for every run that ends, and what is at work below them; a context manager.

    On a terminal that is a row for every stage at work, repainted in place; elsewhere a line from
    time to time.
    """

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        super().__init__()
        self.console, self.progress = console, Progress(runs)
        live = Live(console=console, auto_refresh=False, transient=True)
        self.live = self.enter_context(live) if console.is_terminal else None
        self.started = self.last_line = time.monotonic()
        self.ended: set[str] | None = None
        self.n_setbacks = Counter[str]()

    def show(self, tracks: Sequence[Track]) -> None:
        """Show how things are now; called a few times a second, and once at the end."""
        self.progress.update(tracks)
        ended = [track for track in tracks if track.status in (*FINISHED, PUBLISHED)]
        if self.ended is None:
            self.ended = {track.run.id for track in ended}
            n_published = sum(track.status == PUBLISHED for track in ended)
            before = "finished before" + f", {n_published} of them published" * bool(n_published)
            self._say(f"{len(ended)} of {len(tracks)} runs were {before}; {self.sentence()}")
        for track in tracks:
            for setback in track.setbacks[self.n_setbacks[track.run.id] :]:
                self._say(f"{track.run.method.name} seed {track.run.seed}: {setback}")
            self.n_setbacks[track.run.id] = len(track.setbacks)
        for track in ended:
            if track.run.id not in self.ended:
                self.ended.add(track.run.id)
                self._say(f"{len(self.ended)} of {len(tracks)}: {_sentence(track)}")
        if self.live is not None:
            self.live.update(self._frame(tracks), refresh=True)
        elif time.monotonic() - self.last_line >= HEARTBEAT_SECONDS:
            self._say(self.sentence())

    def sentence(self) -> str:
        """Share of the suite's FLOPs that is executed, and the time left."""
        executed, total = self.progress.executed, self.progress.total
        if not total:
            return "nothing is left to train"
        text = f"{formats.percent(executed / total)} of {formats.flops(total)} FLOPs"
        text += f", {formats.seconds(time.monotonic() - self.started)} elapsed"
        left = self.progress.seconds_left
        return text + (f", about {formats.seconds(left)} left" if left else "")

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)
        self.last_line = time.monotonic()

    def _frame(self, tracks: Sequence[Track]) -> Group:
        n_rows = max(1, self.console.size.height - FRAME_LINES)
        at_work = list(self.progress.at_work.values())
        ended = f"{len(self.ended or ())} of {len(tracks)} runs ended"
        if n_rows < len(at_work):
            ended += f"; {len(at_work) - n_rows} stages at work not shown"
        return Group(self.table(at_work[:n_rows], tracks), f"{ended}\n{self.sentence()}")

    def table(self, at_work: Sequence[Track], tracks: Sequence[Track]) -> FittedTable:
        """A row for each stage at work, under the name of one of the runs that wait for it."""
        names = ("method", "seed", "with", "progress", "", "val bpb", "tokens/s", "FLOPs")
        table = FittedTable(names, spare=("FLOPs", "progress", "with"))
        for track in at_work:
            assert track.tick is not None
            stages = [other.tick.stage for other in tracks if other.tick is not None]
            others = stages.count(track.tick.stage) - 1
            table.add_row(
                track.run.method.name,
                str(track.run.seed),
                f"+ {others}" if others else "",
                ProgressBar(1.0, track.position.flops / track.run.budget, width=BAR_WIDTH),
                f"{100 * track.position.flops / track.run.budget:.0f} %",
                "" if track.bpb is None else formats.bpb(track.bpb),
                formats.count(self.progress.tokens_per_second(track)),
                formats.flops(track.position.flops),
            )
        return table


def troubles(tracks: Sequence[Track], cache: Path) -> Iterator[str]:
    """One line for every reason why runs failed or diverged, with the first of these runs."""
    reasons: dict[tuple[str, str], list[Track]] = {}
    for track in tracks:
        if track.error is not None:
            reasons.setdefault((track.status, track.error), []).append(track)
    for (status, error), (first, *others) in reasons.items():
        line = f"{first.run.method.name} seed {first.run.seed}"
        line += f" and {len(others)} more" if others else ""
        line += f" {status}: {error}"
        stage = first.failed_at
        trace = StageStore(cache).folder(stage.id) / "traceback.txt" if stage else None
        yield f"{line} (see {trace})" if trace and trace.is_file() else line


def _sentence(track: Track) -> str:
    text = f"{track.run.method.name} seed {track.run.seed} {track.status}"
    text += f" at {formats.flops(track.position.flops)} FLOPs"
    if track.bpb is None or not math.isfinite(track.bpb):
        return text
    return f"{text}, val bpb {formats.bpb(track.bpb)}"
