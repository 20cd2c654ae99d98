"""From a suite to its runs, and what they share."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from benchmark.base.errors import ConfigError, DataError
from benchmark.base.plugins import did_you_mean
from benchmark.data.stream import tokens_per_epoch
from benchmark.plan import tuning
from benchmark.plan.config import MethodConfig, SuiteConfig, available, load_method
from benchmark.plan.factors import design
from benchmark.plan.own_schedule import train_bytes
from benchmark.plan.run import Run

MAX_SEEDS = 20
"""The exact sign-flip test enumerates 2 ** seeds patterns."""


def plan(suite: SuiteConfig, data: Mapping[str, Any]) -> list[Run]:
    """Every run of a suite, in display order; of a method the seeds.

    Methods as listed, then the hull, the cells of the crossed design, the runs at tuned settings
    (which are those of the default until trials have ended), and last the trials that choose them.

    Raises:
        ConfigError: an unknown method, a contradiction, or a run longer than the corpus.
        DataError: a corpus without a window of training text.
    """
    protocol, seq_len = suite.protocol, suite.workload.target.seq_len
    if (n_tokens := data.get("train_tokens", data["train"])) <= seq_len:
        raise DataError(
            f"the training split has {n_tokens} tokens; one window of seq_len={seq_len} needs "
            f"{seq_len + 1}"
        )
    methods = [load_method(name) for name in suite.methods]
    methods += [_hull_method(sizes) for sizes in suite.hull]
    methods += design(suite)[0]
    tuned = tuning.tuned_methods(protocol, methods)
    methods += [replace(m, name=f"{m.name}-tuned", tunes=m.name) for m in tuned]
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"methods: {twice} appear more than once")
    if not names:
        raise ConfigError("methods: a suite needs at least one")
    _check_controls(methods)
    seeds = protocol.seeds
    if len(seeds) > MAX_SEEDS:
        raise ConfigError(f"protocol.seeds may hold at most {MAX_SEEDS}, got {len(seeds)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"protocol.seeds must be distinct and not empty, got {list(seeds)}")
    runs = [Run(suite, method, seed, data) for method in methods for seed in seeds]
    runs += [
        Run(suite, trial, seed, data)
        for method in tuned
        for trial in tuning.trials(protocol, method)
        for seed in protocol.tuning.seeds
    ]
    _check_growth(runs)
    if not protocol.allow_repeats:
        _check_one_epoch(runs, tokens_per_epoch(n_tokens, seq_len))
    return runs


def _check_growth(runs: Iterable[Run]) -> None:
    """Refuse what is compared as a method and is scratch under another name."""
    for run in runs:
        if run.method.role == "method" and run.sizes[0] == run.sizes[-1]:
            raise ConfigError(
                f"method.{run.method.name} never grows: set ladder (n_growths, and shrink or "
                "start) and schedule, or role: control"
            )


def _check_controls(methods: list[MethodConfig]) -> None:
    """Refuse controls that no method has as its name; one may be left out of a suite."""
    known = {*available("method"), *(method.name for method in methods)}
    for method in methods:
        for name in method.controls:
            if name not in known:
                near = did_you_mean(name, known)
                raise ConfigError(f"method.{method.name}.controls: no method {name!r}{near}")


def _check_one_epoch(runs: Iterable[Run], n_train_tokens: int) -> None:
    for run in runs:
        seq_len = run.suite.workload.target.seq_len
        if cut := [c.name for c in run.own_corpora if c.sha256 == run.data["sha256"]]:
            raise ConfigError(
                f"method.{run.method.name}.stages: {cut[0]} is text of the suite's own corpus, cut "
                "elsewhere; to read some of it twice set protocol.allow_repeats=true"
            )
        epochs = {c.name: tokens_per_epoch(train_bytes(c), seq_len) for c in run.own_corpora}
        for corpus, wanted in run.reads().items():
            if wanted > (has := epochs.get(corpus, n_train_tokens)):
                raise ConfigError(
                    f"method {run.method.name} would read {wanted:,} bytes at "
                    f"protocol.budget_flops={run.suite.protocol.budget_flops:.3g}, but one epoch "
                    f"of {f'corpus {corpus}' if corpus else 'the corpus'} has {has:,}; lower the "
                    "budget or set protocol.allow_repeats=true"
                )


def _hull_method(sizes: dict[str, int]) -> MethodConfig:
    label = "_".join(
        f"{name.removeprefix('d_').removeprefix('n_')}{v}" for name, v in sizes.items()
    )
    return MethodConfig(
        name=f"fixed_{label}",
        role="hull",
        summary="a fixed size of the iso-FLOP hull",
        target="baselines.scratch:Scratch",
        sizes={**sizes},
    )


def compute(runs: Iterable[Run]) -> tuple[float, float]:
    """Predicted FLOPs that are charged to runs, and those executed: of each distinct stage once."""
    charged, executed = 0.0, dict[str, float]()
    for run in runs:
        start = 0.0
        for spec, result in run.predicted():
            executed[spec.id] = result.end.flops - start
            charged += executed[spec.id]
            start = result.end.flops
    return charged, sum(executed.values())
