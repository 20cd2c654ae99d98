"""Tables of what there is, and of what a suite would do, for a person at a terminal."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from benchmark.base.plugins import PluginConfig
from benchmark.cli.terminal import FittedTable
from benchmark.model.transformer import ModelConfig
from benchmark.plan import tuning
from benchmark.plan.config import (
    MethodConfig,
    available,
    find,
    load_machine,
    load_method,
    load_suite,
)
from benchmark.plan.factors import design
from benchmark.plan.guard import build_method
from benchmark.plan.reading import read
from benchmark.plan.run import Run
from benchmark.plan.spec import Done
from benchmark.plan.suite import compute
from benchmark.records.card import own_schedule
from benchmark.report import formats
from benchmark.report.controls import REQUIRED, lacking, missing
from benchmark.session.outlook import Machine, Outlook, Probe, duration
from benchmark.session.session import Session
from benchmark.stage.checkpoint import StageStore


def methods() -> FittedTable:
    """Every method in configs/method, and what its class declares."""
    names = ("method", "role", "grows", "exact", "paper", "summary")
    table = FittedTable(
        names, prose=("grows", "paper", "summary"), spare=("paper", "exact", "role", "grows")
    )
    for method in map(load_method, available("method")):
        plugin = PluginConfig(target=method.target, args=method.args)
        baseline = build_method(plugin, f"method.{method.name}")
        is_exact = "yes" if baseline.preserves_function else "no"
        table.add_row(
            method.name,
            method.role,
            " ".join(sorted(baseline.grows)) or formats.DASH,
            is_exact if method.ladder.n_growths else formats.DASH,
            method.paper or formats.DASH,
            method.summary,
        )
    return table


def suites() -> FittedTable:
    """Every suite in configs/suite."""
    names = ("suite", "corpus", "C* in FLOPs", "methods", "seeds", "purpose")
    table = FittedTable(names, prose=("purpose",), spare=("seeds", "methods"))
    for name in available("suite"):
        suite = load_suite(name)
        table.add_row(
            suite.name,
            suite.workload.corpus.name,
            formats.flops(suite.protocol.budget_flops),
            str(len(suite.methods) + len(suite.hull)),
            str(len(suite.protocol.seeds)),
            suite.purpose,
        )
    return table


def corpora() -> FittedTable:
    """Every corpus in configs/corpus."""
    names = ("corpus", "kind", "bytes", "licence", "source")
    table = FittedTable(names, prose=("licence", "source"), spare=("source", "kind"))
    for name in available("corpus"):
        manifest = read(find("corpus", name))  # some need a path before they are a configuration
        size = formats.count(manifest["size"]) if "size" in manifest else formats.DASH
        table.add_row(name, manifest["kind"], size, manifest["licence"], manifest["source"])
    return table


def machines() -> FittedTable:
    """Every machine in configs/machine."""
    names = ("machine", "is", "stages at once", "dollars an hour", "figures")
    table = FittedTable(names, prose=("is", "figures"), spare=("figures", "stages at once"))
    for name in available("machine"):
        machine = load_machine(name)
        dollars = f"{machine.dollars_per_hour:g}"
        table.add_row(name, machine.summary, str(machine.workers), dollars, machine.basis)
    return table


def matrix(
    session: Session, outlooks: Sequence[Outlook], machine: Machine | None = None
) -> FittedTable:
    """One row per method of a suite: what its runs would spend, and what is trained already.

    All trials of a method are one row; FLOPs, bytes and epochs are those of one run. With a
    machine, the memory that each stage takes there, and in how many micro-batches if it is short.
    """
    names = ("method", "role", "seeds", "tuned", "sizes that change", "parameters",
             *(() if machine is None else ("memory",)), "FLOPs", "bytes read", "epochs",
             "trained before")  # fmt: skip
    table = FittedTable(
        names,
        prose=("seeds", "tuned", "sizes that change", "parameters", "memory"),
        spare=("tuned", "epochs", "bytes read", "role", "seeds", "parameters", "FLOPs"),
    )
    for name, group in groupby(outlooks, key=lambda outlook: _row_of(outlook.run.method)):
        seeds = list(group)
        run, end = seeds[0].run, seeds[0].stages[-1][1].end
        n_stages = sum(len(outlook.stages) for outlook in seeds)
        n_finished = sum(outlook.n_finished for outlook in seeds)
        n_published = sum(outlook.run.id in session.published for outlook in seeds)
        known = f", {formats.plural(n_published, 'run')} published" if n_published else ""
        table.add_row(
            name,
            run.method.role,
            " ".join(dict.fromkeys(str(outlook.run.seed) for outlook in seeds)),
            _tuned(run.method),
            "; ".join(_changes(seeds[0].stages)) or formats.DASH,
            " ".join(dict.fromkeys(formats.count(spec.n_params) for spec, _ in seeds[0].stages)),
            *_memory(seeds[0].stages, machine),
            formats.flops(end.flops),
            formats.count(round(end.tokens / len(session.corpus.train) * session.data["train"])),
            formats.number(end.tokens / len(session.corpus.train)),
            f"{n_finished} of {n_stages} stages{known}",
        )
    return table


def totals(session: Session, outlooks: Sequence[Outlook], *, with_time: bool) -> Iterator[str]:
    """What the suite costs as a whole, in sentences."""
    trials = [run for run in session.runs if run.method.role == tuning.ROLE]
    later = [run for run in session.runs if tuning.is_open(run.method)]
    known = [run for run in session.runs if run not in trials and run not in later]
    left = {spec.id: steps for outlook in outlooks for spec, steps in outlook.left()}
    ids = {spec.id for outlook in outlooks for spec, _ in outlook.stages}
    yield (
        f"{formats.plural(len(outlooks), 'run')}, {formats.plural(len(ids), 'distinct stage')}, "
        f"of which {len(ids) - len(left)} are trained already"
    )
    yield _charged("", known)
    if later:
        yield _charged(
            f"{formats.plural(len(later), 'run')} more at settings that the trials choose (the "
            "default's cost nothing twice), ",
            later,
        )
    if trials:
        of_budget = formats.percent(trials[0].method.budget)
        yield _charged(
            f"tuning, beside these: {formats.plural(len(trials), 'trial run')} at {of_budget} of "
            "C*, scored on validation only, ",
            trials,
        )
    for name, reason in design(session.suite)[1].items():
        yield f"left out of the crossed design: {name}: {reason}"
    own = {run.method.tunes or run.method.name: run.method for run in session.runs}
    for name, method in own.items():
        if found := own_schedule(asdict(method)):
            yield f"own schedule: {name}: {found}"
    if with_time and left:
        seconds = duration(outlooks, Probe().seconds, session.workers)
        yield (
            f"predicted time for the {formats.plural(len(left), 'stage')} left: "
            f"{formats.seconds(seconds)} with "
            f"{formats.plural(session.workers, 'worker')}, and the seconds these take to start"
        )


def doubts(session: Session, outlooks: Sequence[Outlook]) -> Iterator[str]:
    """What runs leave of their budgets, and which verdicts the report will withhold, and why."""
    ends = [(outlook.stages[-1][1], outlook.run) for outlook in outlooks]
    shares = [(1 - end.end.flops / run.budget, run.method.name) for end, run in ends
              if end.status == "done"]  # fmt: skip
    most, method = max(shares, default=(0.0, ""))
    if most > 0:
        yield f"unspent, as a step is whole: at most {formats.percent(most)} of a budget ({method})"
    runs = {run.method.name: run for run in session.runs if run.method.role != tuning.ROLE}
    fixed = {
        name: run.sizes[0].sizes()
        for name, run in runs.items()
        if run.method.role in ("control", "hull") and not run.n_growths and name not in REQUIRED
    }
    annealed = [run.method.budget for run in runs.values() if run.method.role == "rung"]
    if lost := list(missing(fixed, fixed, session.suite.protocol.rungs, annealed)):
        yield f"there will be no verdict: no run of {formats.listed(list(map(formats.code, lost)))}"
    target = session.suite.workload.target.sizes()
    lacks = defaultdict[str, list[str]](list)
    for name, run in runs.items():
        source = run.sizes[0].sizes()
        alone = None if source in fixed.values() else source
        why = "; ".join(lacking(run.method.controls, runs, alone, target))
        if run.method.role == "method" and why:
            lacks[why].append(name)
    for why, names in lacks.items():
        yield f"will not be called better: {formats.listed(names)} ({why})"


def on_machine(precision: str, outlooks: Sequence[Outlook], machine: Machine) -> Iterator[str]:
    """What the stages that are left would take and cost on a machine, and what that assumes."""
    config = machine.config
    left = {spec.id: (spec, steps) for outlook in outlooks for spec, steps in outlook.left()}
    models = {(spec.model_class, str(spec.model), spec.frozen) for spec, _ in left.values()}
    compiling = len(models) * config.compile_seconds if machine.compiles else 0.0
    seconds = duration(outlooks, machine.seconds, config.workers) + compiling
    flops = sum(spec.step_flops * steps for spec, steps in left.values())
    rate, hours = machine.peak(precision), seconds / 3600
    reached = flops / (rate * config.workers * seconds) if seconds else 0.0
    yield (
        f"on {config.summary}: {formats.plural(len(left), 'stage')}, {formats.flops(flops)} FLOPs, "
        f"{formats.seconds(seconds)}, {hours * config.dollars_per_hour:,.2f} dollars at "
        f"{config.dollars_per_hour:g} an hour ({config.price})"
    )
    kind, widths = machine.kind, {int(spec.model["d_model"]) for spec, _ in left.values()}
    shares = ", ".join(
        f"{formats.percent(machine.utilisation(d))} at d_model {d}" for d in sorted(widths)
    )
    yield (
        f"{config.basis}: {kind} steps reach {shares} of {formats.flops(rate)} FLOP/s at "
        f"{precision}, or take {1e3 * config.layer_seconds:g} ms a block if that is more; a stage "
        f"starts and ends in {config.stage_seconds:g} s"
        + (f", compiling {formats.plural(len(models), 'model')} takes {formats.seconds(compiling)}"
           if compiling else "")
        + f"; all in all {formats.percent(reached)} of the peak"
    )  # fmt: skip


def _memory(stages: Done, machine: Machine | None) -> Iterator[str]:
    """A cell with what the steps of a run take there, if there is a machine."""
    if machine is not None:
        needs = [machine.needs(spec) for spec, _ in stages]
        cells = (formats.memory(n) + f" in {cut} parts" * (cut > 1) for n, cut in needs)
        yield ", ".join(dict.fromkeys(cells))


def _charged(what: str, runs: Sequence[Run]) -> str:
    charged, executed = compute(runs)
    return (
        f"{what}charged {formats.flops(charged)} FLOPs, executed {formats.flops(executed)}: "
        f"{formats.percent(executed / charged)}, as runs share stages"
    )


def _row_of(method: MethodConfig) -> str:
    """What a row is called: a method, or all trials of one."""
    return method.name if method.trial is None else f"{method.tunes}#"


def _tuned(method: MethodConfig) -> str:
    """Settings that the trials chose, or will."""
    if method.trial is not None:
        return ", ".join([*method.tuned, *sorted(method.tunable.keys() - method.tuned.keys())])
    if tuning.is_open(method):
        return "to be chosen"
    return ", ".join(f"{name} {value:g}" for name, value in method.tuned.items()) or formats.DASH


def outlooks_of(session: Session) -> list[Outlook]:
    """What every run of a suite has ahead."""
    store = StageStore(session.cache)
    return [
        Outlook(run, stages, len(stages))
        if run.id in session.published and (stages := run.predicted())
        else Outlook.of(run, store)
        for run in session.runs
    ]


def _changes(stages: Done) -> Iterator[str]:
    """What each growth changes, and where."""
    start = 0.0
    for spec, result in stages:
        if spec.grows_from is not None:
            sizes = [ModelConfig(**m).sizes() for m in (spec.grows_from, spec.model)]
            at = formats.percent(start / spec.budget_flops)
            yield f"{formats.changed(*sizes) or 'no size'} at {at}"
        start = result.end.flops
