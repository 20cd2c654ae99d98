"""From a suite to runs, and from a run to its next stage: a pure function of what is done.

A stage trains one model of fixed sizes between two marks of the budget. Its id hashes everything
that determines its result, its parent's id included, so runs that begin alike share stages: each
is trained once and charged to every run it belongs to.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch

from benchmark import tuning
from benchmark.baseline import Baseline, Plain
from benchmark.config import (
    MethodConfig,
    PluginConfig,
    SuiteConfig,
    as_dict,
    build,
    import_class,
    load_method,
)
from benchmark.cost import Position, affordable_steps, training_flops_per_token
from benchmark.digest import code, science
from benchmark.errors import ConfigError
from benchmark.factors import design
from benchmark.growth import StatePolicy
from benchmark.guard import check_training_is_shared
from benchmark.model import ModelConfig, Transformer
from benchmark.optim import RateCurve
from benchmark.schedule import GrowthSchedule, Point, Progress
from benchmark.sizes import rungs

MAX_SEEDS = 20
"""The exact sign-flip test enumerates 2 ** seeds patterns."""

RELEASES = {"torch": str(torch.__version__), "pytorch-lightning": version("pytorch-lightning")}
"""What does the arithmetic here."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """Everything that determines a stage's result, as plain values."""

    code: str
    """Digest of the harness's science modules."""

    device: str
    """Kind of device, "cpu" or "cuda": each rounds in its own way."""

    devices: int
    """How many of them share each batch: sums over parts round in their own way."""

    releases: dict[str, str]
    """Versions, builds included, of the packages that do the arithmetic."""

    seed: int
    data: dict[str, Any]
    """The corpus by content: name, SHA-256 and the lengths of its splits."""

    batch_size: int
    model: dict[str, Any]
    baseline: str
    """Class that trains the stage; `Plain` until the run first grows."""

    args: dict[str, Any]
    method_code: str
    """Digest of the method's own code; until the run first grows, of its architecture's."""

    model_class: str
    grows_from: dict[str, Any] | None
    """Sizes before the growth that opens the stage, if one does."""

    grows_from_class: str
    """Architecture before that growth; empty if there is none."""

    rung: int
    """Growths so far, this one included."""

    frozen: tuple[str, ...] = ()
    """Parameters that rest."""

    state_policy: str
    rewarm: dict[str, Any] | None
    """The re-warm-up that is under way."""

    optimizer: dict[str, Any]
    rate: dict[str, Any]
    budget_flops: float
    """The suite's C*, the unit of warm-up and re-warm-up."""

    until: float
    """FLOPs at which the stage ends."""

    marks: tuple[float, ...]
    """FLOPs at which the model is evaluated on the curve slice within the stage."""

    is_last: bool
    """Whether the run ends here."""

    splits: tuple[str, ...] = ()
    """Whole splits that are scored at the end: none but in the last stage, in a trial not test."""

    measure: dict[str, Any]
    allow_repeats: bool
    precision: str
    is_compiled: bool
    """Whether steps run through `torch.compile`, which rounds in its own way."""

    parent: str | None

    @cached_property
    def id(self) -> str:
        """Content address."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def step_flops(self) -> float:
        """Charge of one optimizer step."""
        cls = import_class(self.model_class, Transformer, "model_class")
        return step_flops(cls, ModelConfig(**self.model), self.batch_size, self.frozen)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a finished stage leaves for the planner."""

    status: str
    end: Position
    points: tuple[Point, ...] = ()
    error: str | None = None
    peak_memory_bytes: int = 0
    peak_memory_scope: str = "stage"
    """Whose peak that is: "stage", or "process" where a system cannot tell them apart."""

    executed_seconds: float = 0.0
    """Wall-clock of the stage itself, evaluation included."""


Done = Sequence[tuple[StageSpec, StageResult]]


def device(asked: str, precision: str = "32-true") -> str:
    """The kind of device that stages run on: "cpu" or "cuda".

    Raises:
        ConfigError: a GPU is asked for, by name or by what only a GPU can do, and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise ConfigError("run.device is cuda, but there is no GPU; allowed here: auto, cpu")
    found = asked if asked != "auto" else "cuda" if has_gpu else "cpu"
    if precision == "tf32" and found == "cpu":
        raise ConfigError(
            "protocol.precision is tf32, which takes a GPU; allowed on a CPU: 32-true, bf16-mixed"
        )
    return found


def step_flops(
    model_class: type[Transformer],
    config: ModelConfig,
    batch_size: int,
    frozen: Collection[str] = (),
) -> float:
    """Training FLOPs of one step."""
    tokens = batch_size * config.seq_len
    return training_flops_per_token(model_class.shell(config), frozen) * tokens


class Run:
    """One method with one seed."""

    def __init__(
        self, suite: SuiteConfig, method: MethodConfig, seed: int, data: Mapping[str, Any]
    ) -> None:
        self.suite, self.method, self.seed, self.data = suite, method, seed, dict(data)
        self.device = device(suite.run.device, suite.protocol.precision)
        self.protocol = tuning.applied(suite.protocol, method.tuned)
        where = f"method.{method.name}"
        plugin = PluginConfig(target=method.target, args=method.args)
        self.baseline = build(plugin, Baseline, where)
        check_training_is_shared(self.baseline, where)
        self.rungs = rungs(suite.workload.target, method, self.baseline)
        self.schedule = self._schedule(where)
        self.budget = method.budget * suite.protocol.budget_flops
        self.policy = self._policy(where)
        self.rewarm = method.rewarm or self.baseline.rewarm
        self._check_budget()

    def _check_budget(self) -> None:
        """Refuse a budget that leaves no step for a size or for the decay."""
        stages = self.predicted()
        is_whole = stages and stages[-1][0].is_last and stages[-1][0].rung == self.n_growths
        if not is_whole or self._grows_late(stages):
            decay = self.protocol.learning_rate.decay
            raise ConfigError(
                f"protocol.budget_flops: {self.budget:.3g} FLOPs are too few for "
                f"{self.method.name}, which needs a step at every size and one in the decay, the "
                f"last {100 * decay:g} %; a step of its largest model takes "
                f"{self._step_flops(self.n_growths):.3g}"
            )

    def _grows_late(self, stages: Done) -> bool:
        """Whether two growths are so close that no step fits between them."""
        times = self.schedule.times(self.n_growths) if self.schedule is not None else None
        return times is not None and any(
            after.grows_from is not None and end.end.flops > times[after.rung - 1] * self.budget
            for (_, end), (after, _) in pairwise(stages)
        )

    def _schedule(self, where: str) -> GrowthSchedule | None:
        if self.n_growths == 0:
            if self.method.schedule is not None:
                raise ConfigError(f"{where}.schedule is set, but {where}.ladder.n_growths is 0")
            return None
        if self.method.schedule is None:
            raise ConfigError(f"{where}.schedule is missing: when does it grow?")
        schedule = build(self.method.schedule, GrowthSchedule, f"{where}.schedule")
        schedule.times(self.n_growths)
        return schedule

    def _policy(self, where: str) -> StatePolicy:
        if self.method.state_policy is None:
            return self.baseline.state_policy
        try:
            return StatePolicy(self.method.state_policy)
        except ValueError as error:
            allowed = [policy.value for policy in StatePolicy]
            raise ConfigError(
                f"{where}.state_policy must be one of {allowed}, got {self.method.state_policy!r}"
            ) from error

    @property
    def n_growths(self) -> int:
        """Growths the run will make."""
        return len(self.rungs) - 1

    @cached_property
    def id(self) -> str:
        """Content address of the run: its configuration but for the other seeds, data and code.

        Device and releases are left out, unlike from the ids of stages: a run names an experiment,
        and whoever repeats it elsewhere repeats the same one, so that both can be compared by id.
        What each was made with is in its provenance; no stage of one is ever part of the other.
        """
        config = self.config()
        for about_others in ("seeds", "tuning"):
            config["protocol"].pop(about_others)
        config["method"].pop("tunable")
        text = json.dumps([config, self.data, science(), self._method_code()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def config(self) -> dict[str, Any]:
        """The fully resolved configuration."""
        suite = as_dict(self.suite)
        return {
            "suite": self.suite.name,
            "suite_version": self.suite.version,
            "seed": self.seed,
            "workload": suite["workload"],
            "protocol": suite["protocol"],
            "method": as_dict(self.method)
            | {"state_policy": self.policy.value, "rewarm": asdict(self.rewarm)},
        }

    def next_stage(self, done: Done) -> StageSpec | None:
        """The stage that follows `done`, or None when the budget is spent."""
        spent = done[-1][1].end.flops if done else 0.0
        rung = done[-1][0].rung if done else 0
        grows = rung < self.n_growths and self._is_due(spent, rung, done)
        rung += grows
        config, step = self.rungs[rung], self._step_flops(rung)
        until = next((m for m in self._marks(rung) if affordable_steps(spent, m, step)), None)
        if until is None:
            return None
        has_grown = rung > 0
        return StageSpec(
            code=science(),
            device=self.device,
            devices=self.suite.run.devices,
            releases=RELEASES,
            seed=self.seed,
            data=self.data,
            batch_size=self.suite.workload.batch_size,
            model=asdict(config),
            baseline=self.method.target if has_grown else _path(Plain),
            args=self.method.args if has_grown else {},
            method_code=self._method_code() if has_grown else code(self._model_class(0)),
            model_class=_path(self._model_class(rung)),
            grows_from=asdict(self.rungs[rung - 1]) if grows else None,
            grows_from_class=_path(self._model_class(rung - 1)) if grows else "",
            rung=rung,
            frozen=self._frozen(rung),
            state_policy=self.policy.value if has_grown else "",
            rewarm=self._rewarm(rung),
            optimizer=asdict(self.protocol.optimizer),
            rate=asdict(self._rate(until)),
            budget_flops=self.protocol.budget_flops,
            until=until,
            marks=tuple(m for m in self._evaluations() if spent < m < until),
            is_last=until == self.budget,
            splits=self._splits() if until == self.budget else (),
            measure=self._measure(),
            allow_repeats=self.protocol.allow_repeats,
            precision=self.protocol.precision,
            is_compiled=self.suite.run.compile,
            parent=done[-1][0].id if done else None,
        )

    def predicted(self, finished: Done = ()) -> list[tuple[StageSpec, StageResult]]:
        """All stages, as far as they are known after `finished`.

        Schedules that wait for the loss are taken to grow at the last moment.
        """
        done = list(finished)
        while (spec := self.next_stage(done)) is not None:
            start = done[-1][1].end if done else Position()
            steps = affordable_steps(start.flops, spec.until, spec.step_flops)
            windows = steps * spec.batch_size
            end = start.after(
                steps=steps,
                windows=windows,
                tokens=windows * self.rungs[0].seq_len,
                flops=steps * spec.step_flops,
            )
            done.append((spec, StageResult(status="done", end=end)))
        return done

    def _rate(self, until: float) -> RateCurve:
        """The learning rate of a stage that ends at `until`."""
        rate, decay_start = self.protocol.learning_rate, self._decay_start(self.method.budget)
        return RateCurve(
            peak=rate.peak,
            warmup_flops=rate.warmup * self.protocol.budget_flops,
            decay=(decay_start, self.budget) if until > decay_start else None,
        )

    def _is_due(self, spent: float, rung: int, done: Done) -> bool:
        assert self.schedule is not None
        times = self.schedule.times(self.n_growths)
        if times is not None:
            at = times[rung] * self.budget
            return affordable_steps(spent, at, self._step_flops(rung)) == 0
        next_end = min(self.budget, spent + self._step_flops(rung))
        return self.schedule.due(
            Progress(
                spent=next_end / self.budget,
                n_grown=rung,
                n_growths=self.n_growths,
                history=[point for _, result in done for point in result.points],
            )
        )

    def _marks(self, rung: int) -> list[float]:
        """FLOPs where a stage at this rung must end, rising; the last is the budget."""
        protocol = self.protocol
        marks = {cut * protocol.budget_flops for cut in protocol.cuts}
        marks |= {self._decay_start(rung) for rung in [*protocol.rungs, self.method.budget]}
        if self.schedule is not None and rung < self.n_growths:
            times = self.schedule.times(self.n_growths)
            if times is None:
                marks.update(self._evaluations())
            else:
                marks.add(times[rung] * self.budget)
        return [*sorted(mark for mark in marks if mark < self.budget), self.budget]

    def _decay_start(self, rung: float) -> float:
        """FLOPs where a run with this fraction of C* starts to decay its learning rate."""
        protocol = self.protocol
        return (1 - protocol.learning_rate.decay) * (rung * protocol.budget_flops)

    def _evaluations(self) -> list[float]:
        protocol = self.protocol
        n = protocol.n_evaluations
        return [i * protocol.budget_flops / n for i in range(1, n + 1)]

    def _splits(self) -> tuple[str, ...]:
        """What the run is scored on; only what decides the comparison may see the test split."""
        return ("val",) if self.method.role == tuning.ROLE else ("val", "test")

    def _measure(self) -> dict[str, Any]:
        protocol = self.protocol
        return {
            "curve_bytes": protocol.curve_bytes,
            "batch_size": protocol.eval_batch_size,
            "block_bytes": protocol.block_bytes,
        }

    def _rewarm(self, rung: int) -> dict[str, Any] | None:
        """The re-warm-up that is under way at this rung, if one is."""
        is_warming = rung > 0 and self.rewarm.which != "none"
        return asdict(self.rewarm.after(rung)) if is_warming else None

    def _model_class(self, rung: int) -> type[Transformer]:
        source = self.baseline.source_class if rung < min(1, self.n_growths) else None
        return source or self.baseline.model_class

    def _step_flops(self, rung: int) -> float:
        batch_size = self.suite.workload.batch_size
        model_class = self._model_class(rung)
        return step_flops(model_class, self.rungs[rung], batch_size, self._frozen(rung))

    def _frozen(self, rung: int) -> tuple[str, ...]:
        """Parameters that rest at this rung."""
        return self.baseline.frozen(*self.rungs[rung - 1 : rung + 1]) if rung else ()

    def _method_code(self) -> str:
        operators = (type(operator) for operator in self.baseline.operators)
        models = (self._model_class(rung) for rung in range(len(self.rungs)))
        return code(type(self.baseline), *operators, *models)


def plan(suite: SuiteConfig, data: Mapping[str, Any], n_train_tokens: int) -> list[Run]:
    """Every run of a suite, in display order; of a method the seeds.

    Methods as listed, then the hull, the cells of the crossed design, the runs at tuned settings
    (which are those of the default until `tuning.settled`), and last the trials that choose them.

    Raises:
        ConfigError: an unknown method, a contradiction, or a run longer than the corpus.
    """
    protocol = suite.protocol
    methods = [load_method(name) for name in suite.methods]
    methods += [_hull_method(sizes) for sizes in suite.hull]
    methods += design(suite).methods
    tuned = tuning.tuned_methods(protocol, methods)
    methods += [tuning.final(method) for method in tuned]
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"methods: {twice} appear more than once")
    if not names:
        raise ConfigError("methods: a suite needs at least one")
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
    if not protocol.allow_repeats:
        _check_one_epoch(runs, n_train_tokens)
    return runs


def _check_one_epoch(runs: Iterable[Run], n_train_tokens: int) -> None:
    for run in runs:
        wanted = run.predicted()[-1][1].end.tokens
        if wanted > n_train_tokens:
            raise ConfigError(
                f"method {run.method.name} would read {wanted:,} bytes at "
                f"protocol.budget_flops={run.suite.protocol.budget_flops:.3g}, but one epoch of "
                f"the corpus has {n_train_tokens:,}; lower the budget or set "
                "protocol.allow_repeats=true"
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


@dataclass(frozen=True)
class Sharing:
    """How much of a suite's compute is trained once and charged more than once."""

    charged: float
    executed: float

    @classmethod
    def of(cls, runs: Iterable[Run]) -> "Sharing":
        """Predicted FLOPs of all runs, and of their distinct stages."""
        stages = [stage for run in runs for stage in stage_flops(run.predicted())]
        return cls(sum(flops for _, flops in stages), sum(dict(stages).values()))


def stage_flops(stages: Done) -> list[tuple[str, float]]:
    """Id of each stage of a run, and the FLOPs that it adds."""
    ends = [0.0, *(result.end.flops for _, result in stages)]
    added = [end - start for start, end in pairwise(ends)]
    return [(spec.id, flops) for (spec, _), flops in zip(stages, added, strict=True)]


def _path(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
