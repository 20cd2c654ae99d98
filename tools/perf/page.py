"""Writes the page of everything that is timed."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from tools.perf import growth_time, report_time, scheduler, step_time

BFLOAT16 = (step_time.TARGET, step_time.LARGER)
"""Where bf16-mixed is timed beside fp32."""

ONCE = 1
"""Rounds of what takes minutes: a process for each of a hundred growths."""


def main(
    out: Path = Path("results/perf.md"),
    quick: Annotated[bool, typer.Option(help="One round of everything: does it run?")] = False,
) -> None:
    """Time training, growth, reports and scheduling; print the page, write it to `out`."""
    torch.manual_seed(0)
    rounds, few = (1, 1) if quick else (9, 3)
    growths = {
        kind: growth_time.measure(small, growth_time.LARGE, ONCE)
        for kind, small in growth_time.SMALL.items()
    }
    steps = {shape: step_time.measure(shape, rounds) for shape in step_time.SHAPES}
    halves = {shape: step_time.measure_bfloat16(shape, few) for shape in BFLOAT16}
    torch.set_num_threads(1)
    text = "\n".join(
        (
            f"# Speed\n\n{step_time.machine()}. Written by `make perf`.\n",
            step_time.document(steps, halves),
            growth_time.document(growths, ONCE),
            report_time.document(report_time.measure(few)),
            scheduler.document(scheduler.both()),
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    typer.echo(text, nl=False)


if __name__ == "__main__":
    typer.run(main)
