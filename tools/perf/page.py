"""Writes the page of everything that is timed."""

import tempfile
from pathlib import Path

import torch
import typer

from tools.perf import growth_time, report_time, scheduler, step_time, token_time, two_workers


def main(
    rounds: int = 12,
    steps: int = 8,
    growth_rounds: int = 5,
    report_rounds: int = 3,
    out: Path = Path("results/perf.md"),
) -> None:
    """Measure training, growth, reports and scheduling; print the page, write it to `out`."""
    torch.manual_seed(0)
    growths = {
        kind: growth_time.measure(small, growth_time.LARGE, growth_rounds)
        for kind, small in growth_time.SMALL.items()
    }
    torch.set_num_threads(1)
    pairs = {width: token_time.measure(width, rounds) for width in token_time.WIDTHS}
    tokens = token_time.document(pairs)
    torch.set_num_threads(step_time.N_THREADS)
    with tempfile.TemporaryDirectory() as cache:
        steps_taken = step_time.measure(step_time.OURS, Path(cache), n_rounds=rounds, n_steps=steps)
    text = "\n".join(
        (
            step_time.document(steps_taken, step_time.OURS),
            growth_time.document(growths, growth_rounds),
            tokens,
            report_time.document(report_time.measure(report_rounds)),
            two_workers.document(two_workers.measure(two_workers.ROUNDS)),
            scheduler.document(scheduler.both()),
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    typer.echo(text, nl=False)


if __name__ == "__main__":
    typer.run(main)
