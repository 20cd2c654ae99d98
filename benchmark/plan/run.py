"""One method with one seed, and its next stage: a pure function of what is done."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from benchmark.base.digest import code, science
from benchmark.base.errors import ConfigError
from benchmark.base.plugins import PluginConfig, class_path, failures
from benchmark.data.corpora import CorpusConfig
from benchmark.growth.operator import StatePolicy
from benchmark.growth.schedule import Progress
from benchmark.model.cost import Position, affordable_steps
from benchmark.model.transformer import Transformer
from benchmark.plan import tuning
from benchmark.plan.config import MethodConfig, SuiteConfig, is_compiled
from benchmark.plan.guard import build_method, build_schedule, check_training_is_shared, sizes_of
from benchmark.plan.own_schedule import OwnStage, check_stages, train_bytes
from benchmark.plan.spec import (
    RELEASES,
    Done,
    StageResult,
    StageSpec,
    device,
    method_code,
    step_flops,
    without_modules,
)
from benchmark.training.baseline import Plain
from benchmark.training.optim import RateCurve, optimizer_code


class Run:
    """One method with one seed."""

    def __init__(
        self, suite: SuiteConfig, method: MethodConfig, seed: int, data: Mapping[str, Any]
    ) -> None:
        self.suite, self.method, self.seed, self.data = suite, method, seed, dict(data)
        self.device = device(suite.run.device, suite.protocol.precision)
        self.protocol = tuning.with_settings(suite.protocol, method.tuned)
        self.optimizer_code = optimizer_code(self.protocol.optimizer)
        where = f"method.{method.name}"
        plugin = PluginConfig(target=method.target, args=method.args)
        self.baseline = build_method(plugin, where)
        check_training_is_shared(self.baseline, where)
        self.sizes = sizes_of(suite.workload.target, method, self.baseline)
        self.schedule = build_schedule(method, where)
        self.budget = method.budget * suite.protocol.budget_flops
        self.policy = StatePolicy(method.state_policy or self.baseline.state_policy)
        self.rewarm = method.rewarm or self.baseline.rewarm
        check_stages(method.stages, self._times, self.n_growths, where)
        self._check_budget(where)

    def _check_budget(self, where: str) -> None:
        """Refuse a schedule that never fires, and a budget that lacks a step somewhere."""
        stages = self.predicted()
        is_spent = bool(stages) and stages[-1][0].is_last
        n_grown = stages[-1][0].n_grown if stages else 0
        times = self._times
        if is_spent and n_grown < self.n_growths and times is None:
            raise ConfigError(
                f"{where}.schedule: by the end of the budget it has grown {n_grown} times of the "
                f"{self.n_growths} that ladder.n_growths asks for"
            )
        if not is_spent or n_grown < self.n_growths or self._grows_late(stages):
            decay = self.protocol.learning_rate.decay
            growths = f", growths being due at {list(times)} of it" if times else ""
            raise ConfigError(
                f"protocol.budget_flops: {self.budget:.3g} FLOPs are too few for "
                f"{self.method.name}, which needs a step at every size and one in the decay, the "
                f"last {100 * decay:g} %{growths}; a step of its largest model takes "
                f"{self._step_flops[-1]:.3g}"
            )

    def _grows_late(self, stages: Done) -> bool:
        """Whether two growths are so close that no step fits between them."""
        times = self._times
        return times is not None and any(
            after.grows_from is not None and end.end.flops > times[after.n_grown - 1] * self.budget
            for (_, end), (after, _) in pairwise(stages)
        )

    @property
    def n_growths(self) -> int:
        """Growths the run will make."""
        return len(self.sizes) - 1

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
        codes = [science(), self._method_code, code(type(self.schedule))]
        codes += [self.optimizer_code] if self.optimizer_code else []
        text = json.dumps([without_modules(config), self.data, codes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def config(self) -> dict[str, Any]:
        """The fully resolved configuration."""
        suite = asdict(self.suite)
        return {
            "suite": self.suite.name,
            "suite_version": self.suite.version,
            "seed": self.seed,
            "workload": suite["workload"],
            "protocol": suite["protocol"],
            "method": asdict(self.method)
            | {"state_policy": self.policy.value, "rewarm": asdict(self.rewarm)},
        }

    def next_stage(self, done: Done) -> StageSpec | None:
        """The stage that follows `done`, or None when the budget is spent.

        Raises:
            ConfigError: the method's own code, such as its schedule, raises something.
        """
        with failures(f"method.{self.method.name}"):
            return self._next_stage(done)

    def _next_stage(self, done: Done) -> StageSpec | None:
        spent, n_grown = (done[-1][1].end.flops, done[-1][0].n_grown) if done else (0.0, 0)
        grows = n_grown < self.n_growths and self._is_due(spent, n_grown, done)
        n_grown += grows
        step = self._step_flops[n_grown]
        until = next((m for m in self._marks(n_grown) if affordable_steps(spent, m, step)), None)
        if until is None:
            return None
        has_grown = n_grown > 0
        return StageSpec(
            **self._common,
            model=self._models[n_grown],
            baseline=self.method.target if has_grown else class_path(Plain),
            args=self.method.args if has_grown else {},
            method_code=self._method_code if has_grown else code(self._model_class(0)),
            model_class=class_path(self._model_class(n_grown)),
            grows_from=self._models[n_grown - 1] if grows else None,
            grows_from_class=class_path(self._model_class(n_grown - 1)) if grows else "",
            n_grown=n_grown,
            frozen=self._frozen[n_grown],
            state_policy=self.policy.value if has_grown else "",
            rewarm=self._rewarm(n_grown),
            rate=asdict(self._rate(n_grown, until)),
            until=until,
            marks=tuple(m for m in self._evaluations() if spent < m < until),
            is_last=until == self.budget,
            splits=self._splits() if until == self.budget else (),
            parent=done[-1][0].id if done else None,
            own_text=self._own_text(n_grown),
            first_window=self._first_window(n_grown, done),
        )

    @cached_property
    def _common(self) -> dict[str, Any]:
        """What all stages of the run have in common."""
        protocol = self.protocol
        # an architecture's own sizes are those that the run ends with
        target = replace(self.suite.workload.target, own=self.sizes[-1].own)
        return {
            "code": science(),
            "device": self.device,
            "releases": RELEASES,
            "seed": self.seed,
            "data": self.data,
            "batch_size": self.suite.workload.batch_size,
            "optimizer_code": self.optimizer_code,
            "optimizer": asdict(protocol.optimizer),
            "size_rule": asdict(protocol.learning_rate.size_rule(target)),
            "budget_flops": protocol.budget_flops,
            "measure": {
                "curve_bytes": protocol.curve_bytes,
                "batch_size": protocol.eval_batch_size,
                "block_bytes": protocol.block_bytes,
            },
            "allow_repeats": protocol.allow_repeats,
            "precision": protocol.precision,
            "is_compiled": is_compiled(self.suite.run.compile, self.device),
        }

    def predicted(self, finished: Done = ()) -> list[tuple[StageSpec, StageResult]]:
        """All stages, as far as they are known after `finished`.

        Schedules that wait for the loss are taken to grow at the last moment.
        """
        return self._predict(finished) if finished else list(self._predicted)

    @cached_property
    def _predicted(self) -> list[tuple[StageSpec, StageResult]]:
        """All stages of a run that has not begun, which is asked for time and again."""
        return self._predict(())

    def _predict(self, finished: Done) -> list[tuple[StageSpec, StageResult]]:
        done = list(finished)
        while (spec := self.next_stage(done)) is not None:
            start, step = done[-1][1].end if done else Position(), self._step_flops[spec.n_grown]
            steps = affordable_steps(start.flops, spec.until, step)
            windows = steps * spec.batch_size
            end = start.after(
                steps=steps,
                windows=windows,
                tokens=windows * self.sizes[0].seq_len,
                flops=steps * step,
            )
            done.append((spec, StageResult(status="done", end=end)))
        return done

    @cached_property
    def _times(self) -> tuple[float, ...] | None:
        """Fractions of the run's budget at which it grows, where they are known beforehand."""
        return self.schedule.times(self.n_growths) if self.schedule is not None else None

    def _rate(self, n_grown: int, until: float) -> RateCurve:
        """The learning rate of a stage that ends at `until`."""
        curve = self._whole_rate(n_grown)
        has_decay = curve.decay is not None and until > curve.decay[0]
        return curve if has_decay else replace(curve, decay=None, shape="linear", floor=0.0)

    def _whole_rate(self, n_grown: int) -> RateCurve:
        """The learning rate after so many growths, to its end."""
        protocol, own = self.protocol, self._own(n_grown).rate
        if own is not None:
            growths = [time * self.budget for time in self._times or ()]
            start, end = [0.0, *growths][n_grown], [*growths, self.budget][n_grown]
            return own.curve(protocol.learning_rate, protocol.budget_flops, start, end)
        rate = protocol.learning_rate
        return RateCurve(
            peak=rate.peak,
            warmup_flops=rate.warmup * protocol.budget_flops,
            decay=(self._decay_start(self.method.budget), self.budget),
        )

    def _own(self, n_grown: int) -> OwnStage:
        """What the method does in its own way after so many growths."""
        return self.method.stages[n_grown] if self.method.stages else OwnStage()

    @property
    def own_corpora(self) -> list[CorpusConfig]:
        """Corpora that the run reads beside the suite's, each once."""
        found = [stage.corpus for stage in self.method.stages]
        suite = self.data.get("sha256"), self.data.get("train")
        others = [c for c in found if c is not None and (c.sha256, train_bytes(c)) != suite]
        return [corpus for i, corpus in enumerate(others) if corpus not in others[:i]]

    def reads(self) -> dict[str, int]:
        """Predicted bytes that the run reads of each training text; the suite's is ""."""
        tokens: dict[str, int] = {}
        last = 0
        for spec, result in self.predicted():
            name = spec.own_text["name"] if spec.own_text else ""
            tokens[name] = tokens.get(name, 0) + result.end.tokens - last
            last = result.end.tokens
        return tokens

    def _own_text(self, n_grown: int) -> dict[str, Any] | None:
        corpus = self._own(n_grown).corpus
        return asdict(corpus) if corpus in self.own_corpora else None

    def _first_window(self, n_grown: int, done: Done) -> int:
        """Windows that the run has read of other texts than the stage's, which count for none."""
        text = self._own_text(n_grown)
        starts = [0, *(result.end.window for _, result in done)]
        return sum(
            result.end.window - start
            for start, (spec, result) in zip(starts, done, strict=False)
            if spec.own_text != text
        )

    def _is_due(self, spent: float, n_grown: int, done: Done) -> bool:
        assert self.schedule is not None
        if (times := self._times) is not None:
            at = times[n_grown] * self.budget
            return affordable_steps(spent, at, self._step_flops[n_grown]) == 0
        next_end = min(self.budget, spent + self._step_flops[n_grown])
        return self.schedule.due(
            Progress(
                spent=next_end / self.budget,
                n_grown=n_grown,
                n_growths=self.n_growths,
                history=[point for _, result in done for point in result.points],
            )
        )

    def _marks(self, n_grown: int) -> list[float]:
        """FLOPs where a stage after so many growths must end, rising; the last is the budget."""
        protocol = self.protocol
        marks = {cut * protocol.budget_flops for cut in protocol.cuts}
        marks |= {self._decay_start(fraction) for fraction in [*protocol.rungs, self.method.budget]}
        if (decay := self._whole_rate(n_grown).decay) is not None:
            marks.add(decay[0])
        if n_grown < self.n_growths:
            times = self._times
            marks.update(self._evaluations() if times is None else [times[n_grown] * self.budget])
        return [*sorted(mark for mark in marks if mark < self.budget), self.budget]

    def _decay_start(self, fraction: float) -> float:
        """FLOPs where a run of this fraction of C* starts to decay its learning rate."""
        protocol = self.protocol
        return (1 - protocol.learning_rate.decay) * (fraction * protocol.budget_flops)

    def _evaluations(self) -> list[float]:
        protocol = self.protocol
        n = protocol.n_evaluations
        return [i * protocol.budget_flops / n for i in range(1, n + 1)]

    def _splits(self) -> tuple[str, ...]:
        """What the run is scored on; only what decides the comparison may see the test split."""
        return ("val",) if self.method.role == tuning.ROLE else ("val", "test")

    def _rewarm(self, n_grown: int) -> dict[str, Any] | None:
        """The re-warm-up that is under way after so many growths, if one is."""
        is_warming = n_grown > 0 and self.rewarm.which != "none" and self._own(n_grown).rate is None
        return asdict(self.rewarm.after(n_grown)) if is_warming else None

    def _model_class(self, n_grown: int) -> type[Transformer]:
        source = self.baseline.source_class if n_grown < min(1, self.n_growths) else None
        return source or self.baseline.model_class

    @cached_property
    def _method_code(self) -> str:
        return method_code(self.baseline)

    @cached_property
    def _models(self) -> list[dict[str, Any]]:
        """All sizes as plain values."""
        return [asdict(size) for size in self.sizes]

    @cached_property
    def _frozen(self) -> list[tuple[str, ...]]:
        """Parameters that rest at each size."""
        return [(), *(self.baseline.frozen(*sizes) for sizes in pairwise(self.sizes))]

    @cached_property
    def _step_flops(self) -> list[float]:
        """Charge of a step at each size."""
        batch_size = self.suite.workload.batch_size
        return [
            step_flops(
                self._model_class(n).shell(size), batch_size, frozen, self.protocol.optimizer
            )
            for n, (size, frozen) in enumerate(zip(self.sizes, self._frozen, strict=True))
        ]
