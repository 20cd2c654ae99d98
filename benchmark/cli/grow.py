"""`growbench grow`: a trained checkpoint on disk becomes a larger one, and is compared with it."""

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from benchmark.base.errors import ConfigError
from benchmark.cli.terminal import FittedTable
from benchmark.pretrained.card import card, differences
from benchmark.pretrained.folder import check_free, new_folder
from benchmark.pretrained.grow import Plan
from benchmark.pretrained.optimizer import grow_optimizer
from benchmark.pretrained.proof import Difference, check_available
from benchmark.pretrained.proof import differences as measured
from benchmark.report import formats


def show(plan: Plan, console: Console) -> None:
    """What is about to be done."""
    table = FittedTable(("operator", "grows", "function"), prose=("grows",))
    for name, grown, is_exact in plan.steps():
        table.add_row(name, grown, "claimed to stay" if is_exact else "will change")
    console.print(table)
    console.print(
        f"{len(plan.source.tensors)} tensors become {len(plan.entries)}: {plan.n_bytes:,} bytes in "
        f"{formats.plural(len(plan.shards), 'file')}",
        soft_wrap=True,
    )


def grow_checkpoint(
    plan: Plan, out: Path | None, console: Console, *, checks: bool, optimizer: bool
) -> None:
    """Write the larger checkpoint, with its optimizer.pt if asked, and compare the logits of both.

    Raises:
        typer.Exit: with code 1, a claim does not hold; nothing is left behind.
    """
    if out is None:
        raise ConfigError("--out is missing: the folder to write, which must not be there yet")
    check_free(out)
    if checks:
        check_available()
    with new_folder(out) as folder:
        with Progress(BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("", total=plan.n_bytes)
            plan.write(folder, lambda n_bytes: bar.advance(task, n_bytes))
        if optimizer:
            grow_optimizer(plan, folder)
        found = _compare(plan, folder, console) if checks else []
        (folder / "README.md").write_text(card(plan, found, out.name), encoding="utf-8")
    console.print(str(out), soft_wrap=True)


def _compare(plan: Plan, folder: Path, console: Console) -> list[Difference]:
    """Differences of the logits, shown.

    Raises:
        typer.Exit: with code 1, they are claimed to be rounding and are not.
    """
    found = measured(plan.source.path, folder, plan.stored, plan.request.seed)
    console.print(differences(plan, found))
    if plan.is_exact and not all(difference.is_rounding for difference in found):
        typer.echo("growbench: the claim does not hold; nothing was written", err=True)
        raise typer.Exit(1)
    return found
