"""The command line; `growbench --help` lists its commands.

A user's mistake is one line on stderr and exit code 2. Commands import what they need themselves:
help and reports do not wait for torch.
"""

# ruff: noqa: PLC0415

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from benchmark.base.errors import BenchmarkError, RecordError
from benchmark.cli.terminal import FittedTable, accept_every_character, console

if TYPE_CHECKING:
    from benchmark.plan.config import SuiteConfig
    from benchmark.session.doctor import Finding

INTERRUPTED = 130

app = typer.Typer(
    help="Compare ways of growing a language model at equal compute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A name in configs/suite, or a YAML file.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the suite to change.")
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Arguments of the method.")
]
ResultsName = Annotated[
    str, typer.Argument(metavar="RESULTS", help="A folder such as results/cpu, or a suite's name.")
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="A method to add: a name in configs/method, or a YAML file."),
]

Sizes = Annotated[
    list[str],
    typer.Option(
        metavar="SIZE=VALUE", help="d_model, n_layer, n_head, n_kv_head or d_ff; may repeat."
    ),
]
Unchecked = Annotated[
    bool, typer.Option("--no-check", help="Do not compare the logits of both models.")
]
WithState = Annotated[
    bool, typer.Option("--optimizer", help="Grow optimizer.pt of the Trainer as well.")
]
Architecture = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Describes the tensors of another model.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; methods may lie in the working folder."""
    accept_every_character()
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # worker processes inherit the path
    try:
        app(arguments)
    except (BenchmarkError, OSError) as error:
        typer.echo(f"growbench: {' '.join(str(error).split())}", err=True)
        sys.exit(2)


@app.command("list")
def list_() -> None:
    """Show the methods, suites, corpora and machines there are."""
    from benchmark.cli import listing

    tables = (listing.methods(), listing.suites(), listing.corpora(), listing.machines())
    for table in tables:
        console().print(table, "")


@app.command()
def plan(
    suite: SuiteName,
    overrides: Overrides = None,
    method: Methods = None,
    probe: Annotated[bool, typer.Option(help="Time a few steps to predict the duration.")] = True,
    machine: Annotated[
        str | None, typer.Option(help="Predict for this one: a name in configs/machine, or YAML.")
    ] = None,
) -> None:
    """Show what a suite would train and what it costs; train nothing."""
    from benchmark.cli import listing
    from benchmark.plan.config import is_compiled, load_machine
    from benchmark.session.outlook import Machine
    from benchmark.session.session import Session

    config, elsewhere = _load(suite, overrides, method), None
    if machine is not None:
        there = load_machine(machine)
        elsewhere = Machine(there, is_compiled(config.run.compile, there.device))
    session, out = Session(config), console()
    outlooks = listing.outlooks_of(session)
    out.print(listing.matrix(session, outlooks, elsewhere))
    lines = list(listing.totals(session, outlooks, with_time=probe and elsewhere is None))
    if elsewhere is not None:
        lines += listing.on_machine(config.protocol.precision, outlooks, elsewhere)
    lines += listing.doubts(session, outlooks)
    for line in lines:
        out.print(line, soft_wrap=not out.is_terminal)


@app.command()
def doctor(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="What to train; gpu with CUDA, else cpu.")
    ] = "",
    overrides: Overrides = None,
    write: Annotated[Path | None, typer.Option(help="Machine file for plan --machine.")] = None,
) -> None:
    """Look whether this machine can train a suite, and measure how fast; exit code 1 if not.

    Takes 20 steps of the suite's target and of its narrowest model; downloads nothing.
    """
    from dataclasses import asdict

    import torch
    import yaml

    from benchmark.cli.listing import on_machine
    from benchmark.session.doctor import Doctor
    from benchmark.session.outlook import Machine, Outlook

    config = _load(suite or ("gpu" if torch.cuda.is_available() else "cpu"), overrides)
    found = Doctor(config)
    if "failed" in [_tell(finding) for finding in found.examine()]:
        raise typer.Exit(1)
    machine = found.measure("measured" if write is None else write.stem)
    for finding in found.speeds(machine):
        _tell(finding)
    outlooks = [Outlook(run, run.predicted(), 0) for run in found.runs]
    here = Machine(machine, found.compiles)
    typer.echo(f"suite {config.name} {next(on_machine(config.protocol.precision, outlooks, here))}")
    if write is not None:
        write.write_text(yaml.safe_dump(asdict(machine), sort_keys=False), encoding="utf-8")
        typer.echo(f"wrote {write}: growbench plan {config.name} --machine {write}")


def _tell(finding: "Finding") -> str:
    """Show a finding as soon as it is known; its status."""
    typer.echo(f"{finding.status:<7}{finding.name:<9}{finding.detail}")
    return finding.status


@app.command()
def run(
    suite: SuiteName,
    overrides: Overrides = None,
    method: Methods = None,
    executor: Annotated[str | None, typer.Option(help="run.executor: local or ray.")] = None,
    address: Annotated[str | None, typer.Option(help="run.address: HOST:PORT of Ray.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Train published runs, too.")] = False,
) -> None:
    """Train what is neither trained nor published yet and write the report.

    The same command continues a suite that was stopped. Exit code 1 means that a run failed; it
    has a row in the report.
    """
    out = console()
    out.print(f"planning {suite} and starting workers", soft_wrap=True)
    from benchmark.base.processes import start_server

    try:
        if executor != "ray":
            start_server()  # it imports what workers need while this process plans
        named = {"executor": executor, "address": address, "published": "''" if again else None}
        settings = [f"run.{key}={value}" for key, value in named.items() if value is not None]
        code = _run(out, _load(suite, [*(overrides or ()), *settings], method))
    except KeyboardInterrupt:
        typer.echo("growbench: interrupted; the same command goes on where it stopped", err=True)
        code = INTERRUPTED
    raise typer.Exit(code)


@app.command()
def grow(  # noqa: PLR0913 - options of a command
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The folder of a checkpoint of transformers.")
    ],
    arguments: Arguments = None,
    *,
    method: Annotated[
        str, typer.Option(help="A name in configs/method, a YAML file, or MODULE:CLASS.")
    ],
    to: Sizes,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to make; must not be there.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    no_check: Unchecked = False,
    optimizer: WithState = False,
    architecture: Architecture = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
) -> None:
    """Make a trained checkpoint of transformers larger, and compare the logits of both.

    Exit code 1 means that the method claims to keep the function, and does not.
    """
    from benchmark.cli.grow import grow_checkpoint, show
    from benchmark.plan.reading import parse
    from benchmark.pretrained.grow import Plan, Request

    plan = Plan(Request(path, method, to, parse(arguments or ()), seed, architecture))
    show(plan, console())
    if not dry_run:
        grow_checkpoint(plan, out, console(), checks=not no_check, optimizer=optimizer)


@app.command()
def report(
    results: ResultsName,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a file is out of date.")
    ] = False,
) -> None:
    """Render the report of a results folder from its records."""
    from benchmark.report import files

    folder = _folder(results)
    if not check:
        files.write(folder)
        typer.echo(folder / "report.md")
    elif stale := files.check(folder):
        typer.echo(f"growbench: not what the records give: {', '.join(map(str, stale))}", err=True)
        raise typer.Exit(1)


@app.command()
def show(results: ResultsName) -> None:
    """Print the verdicts of a report: difference to scratch, 95 % interval, verdict."""
    _show(console(), _folder(results))


@app.command()
def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="suite or method.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
) -> None:
    """Write commented files to start from: NAME.yaml, and NAME.py for a method."""
    from benchmark.cli.new import write

    for path in write(kind, name, Path.cwd()):
        typer.echo(path.name)


@app.command()
def tokenize(
    text: Annotated[Path, typer.Argument(metavar="FILE", help="A text in UTF-8.")],
    tokenizer: Annotated[
        Path, typer.Option(help="JSON of `tokenizers`, or tiktoken's ranks (cut as GPT-2 does).")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.")] = Path(),
    val_start: Annotated[float, typer.Option(help="Byte, or share of the text.")] = 0.9,
    test_start: Annotated[float, typer.Option(help="Byte, or share of the text.")] = 0.95,
) -> None:
    """Make a corpus of tokens from a text: FILE_tokens.bin and its manifest FILE_tokens.yaml."""
    from benchmark.data.corpora import Splits
    from benchmark.data.tokenize import tokenize

    splits = Splits(val_start=val_start, test_start=test_start)
    manifest, size = tokenize(text, tokenizer, out, splits)
    typer.echo(f"workload.corpus={manifest} workload.target.vocab_size={size}")


@app.command()
def publish(
    results: ResultsName,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite results of another version or plan.")
    ] = False,
) -> None:
    """Check a finished suite, and copy records, report, tables and figures to results/SUITE."""
    from benchmark.session.publish import publish

    for line in publish(_folder(results), Path("results"), replace=replace):
        typer.echo(line)


@app.command()
def check(
    method: Annotated[
        str,
        typer.Argument(metavar="METHOD", help="MODULE:CLASS, a name in configs/method, or YAML."),
    ],
    arguments: Arguments = None,
    optimizer: Annotated[
        str, typer.Option(metavar="MODULE:CLASS", help="Train with this instead of AdamW.")
    ] = "",
) -> None:
    """Hold a method to what it declares; exit code 1 if it fails."""
    from benchmark import contract
    from benchmark.plan.reading import parse

    results = contract.check(method, parse(arguments or ()), optimizer)
    words = {True: "passed", False: "failed"}
    _judged((words[verdict.passed], name, verdict.detail) for name, verdict in results.items())


@app.command()
def audit(results: ResultsName) -> None:
    """Recompute every number of a results folder from its records; exit code 1 on a fault."""
    from benchmark import audit

    _judged((f.status, f.name, f.detail) for f in audit.audit(_folder(results)))


def _judged(findings: Iterable[tuple[str, str, str]]) -> None:
    """Show the status, name and detail of each finding; exit code 1 if one has failed."""
    colours, has_failed = {"passed": "green", "note": "yellow", "failed": "red"}, False
    table = FittedTable(("", "check", "detail"), prose=("detail",))
    for status, name, detail in findings:
        table.add_row(Text(status, colours[status]), name, Text(detail, overflow="fold"))
        has_failed |= status == "failed"
    console().print(table)
    raise typer.Exit(int(has_failed))


@app.command("compare")
def compare_(
    a: Annotated[str, typer.Argument(metavar="A", help="Results to compare with.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Results to judge.")],
) -> None:
    """Compare two results, folders or suites' names; exit code 1 if a method is worse in B.

    Differences are B minus A in test bpb, paired by seed, with 95 % intervals; ~ is not
    significant.
    """
    from benchmark.report import formats
    from benchmark.report.compare import compare_folders

    changes = compare_folders(_folder(a), _folder(b))
    names = ("", "method", "seeds", "A", "B", "B - A")
    table = FittedTable(names, spare=("seeds", "A", "B"))
    for change in changes.methods:
        moved = change.difference
        table.add_row(
            Text(change.mark, "red" if change.regressed else ""),
            change.method,
            str(moved.n),
            formats.bpb(change.before.value),
            formats.bpb(change.after.value),
            formats.difference(moved.value, moved.low, moved.high),
        )
    out = console()
    out.print(table)
    for side, methods in {"A": changes.only_in_a, "B": changes.only_in_b}.items():
        if methods:
            out.print(f"only in {side}: {', '.join(methods)}", soft_wrap=True)
    apart = [f"{run}: {where}" for run, where in changes.records.items() if where]
    n_same = len(changes.records) - len(apart)
    out.print(f"{n_same} of {len(changes.records)} runs have the same records, times aside")
    if apart:
        out.print(f"first difference: {apart[0]}", soft_wrap=True)
    for key, (before, after) in changes.provenance.items():
        out.print(f"made with another {key}: {before} in A, {after} in B", soft_wrap=True)
    raise typer.Exit(1 if changes.regressed else 0)


def _run(out: Console, suite: "SuiteConfig") -> int:
    from benchmark.cli.display import Display, troubles
    from benchmark.session.session import Session

    session = Session(suite)
    try:
        with Display(out, session.runs) as shown:
            tracks = session.execute(shown.show)
            shown.show(tracks)
    except KeyboardInterrupt:
        out.print("interrupted; writing the report of the runs that have ended", soft_wrap=True)
        try:
            _write_report(out, session.results)
        except RecordError as error:
            out.print(f"there is none: {error}", soft_wrap=True)
        raise
    _write_report(out, session.results)
    for line in troubles(tracks, session.cache):
        typer.echo(f"growbench: {line}", err=True)
    return 1 if any(track.failure is not None for track in tracks) else 0


def _write_report(out: Console, results: Path) -> None:
    """Write the report of a folder, and show its verdicts and where it is."""
    from benchmark.report import files  # with pandas and matplotlib

    files.write(results)
    _show(out, results)
    out.print(str(results / "report.md"), soft_wrap=True)


def _show(out: Console, results: Path) -> None:
    """Show the verdicts of a report, and why there is none on some methods."""
    from benchmark.cli.verdicts import verdicts, withheld

    out.print(verdicts(results))
    for line in withheld(results):
        out.print(line, soft_wrap=not out.is_terminal)


def _folder(results: str) -> Path:
    """The results folder at that path, or of that suite: one's own, or else the published one."""
    path = Path(results).expanduser()
    usual = (path, Path("results/local") / path, Path("results") / path)
    if found := next(filter(Path.is_dir, usual), None):
        return found
    if path.parent != Path() and path.suffix != ".yaml":
        return path
    suite = _load(results)  # in other places than the default ones, and only this waits for torch
    for place in (suite.run.results, suite.run.published):
        if (folder := Path(place).expanduser() / suite.name).is_dir():
            return folder
    raise RecordError(
        f"suite {suite.name} has results neither in run.results={suite.run.results} nor in "
        f"run.published={suite.run.published}; growbench run {results} makes some"
    )


def _load(
    name: str, overrides: list[str] | None = None, added: list[str] | None = None
) -> "SuiteConfig":
    from benchmark.plan.config import load_suite

    return load_suite(name, overrides or (), added or ())
