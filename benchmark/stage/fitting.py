"""What training a stage takes: its corpus, its method, and the steps of a fit."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from benchmark.base.digest import code, science
from benchmark.base.errors import ChangedError, DivergenceError
from benchmark.base.plugins import PluginConfig, build, import_class
from benchmark.data.corpora import Corpus, CorpusConfig, load
from benchmark.data.stream import ByteStream
from benchmark.model.cost import Position
from benchmark.model.transformer import Transformer
from benchmark.plan.reading import filled
from benchmark.plan.spec import StageSpec, method_code
from benchmark.stage.batches import Batches
from benchmark.stage.checkpoint import StageStore, State, load_state
from benchmark.stage.context import Context
from benchmark.stage.process import ProcessState
from benchmark.training.baseline import Baseline, Fit
from benchmark.training.loop import make_fabric, train
from benchmark.training.optim import OptimizerConfig, RateCurve, Rewarm, optimizer_code


class Fitting:
    """What a stage is trained with, as its specification says."""

    def __init__(
        self, spec: StageSpec, context: Context, n_micro: int, process: ProcessState
    ) -> None:
        self.spec, self.context, self.n_micro, self.process = spec, context, n_micro, process
        self.store = StageStore(context.cache)
        self.folder = self.store.folder(spec.id)
        self.corpus = load(context.corpus, context.cache / "corpora")
        """What models are scored on."""

        self.read = self._read()
        """What the stage is trained on."""

        self.model_class = import_class(spec.model_class, Transformer, "model_class")
        plugin = PluginConfig(target=spec.baseline, args=spec.args)
        self.baseline = build(plugin, Baseline, "baseline")
        self._check_loaded()
        self.check()

    def _read(self) -> Corpus:
        if self.spec.own_text is None:
            return self.corpus
        config = filled(CorpusConfig, ("stages.corpus: ", self.spec.own_text))
        return load(config, self.context.cache / "corpora")

    def _check_loaded(self) -> None:
        """Compare text and code that this process has loaded with what the stage was hashed from.

        Raises:
            ChangedError: something has changed since the run was planned.
        """
        spec, has_grown = self.spec, self.spec.n_grown > 0
        method = method_code(self.baseline) if has_grown else code(self.model_class)
        name = spec.baseline if has_grown else spec.model_class
        optimizer = optimizer_code(OptimizerConfig(**spec.optimizer))
        found = {
            f"the text of corpus {self.corpus.name}": (spec.data.get("sha256"), self.corpus.sha256),
            "growbench's own code": (spec.code, science()),
            f"the code of {name}, or of what it imports,": (spec.method_code, method),
            f"the code of {spec.optimizer['target'] or 'AdamW'}": (spec.optimizer_code, optimizer),
        }
        for what, (planned, loaded) in found.items():
            if planned != loaded:
                raise ChangedError(f"{what} has changed since the run was planned; run again")

    def check(self) -> None:
        """Check that the stage still runs as it was planned; before anything of it is kept.

        Raises:
            ChangedError: the corpus has changed.
            MethodError: the method has changed the process.
        """
        self.corpus.check()
        self.read.check()
        self.process.check(self.spec.baseline)

    @property
    def progress(self) -> Path:
        """Where the state of an unfinished stage lies."""
        return self.folder / "progress.safetensors"

    def saved_state(self) -> State:
        """The state that an unfinished stage has saved."""
        return load_state(self.progress, self.model_class, self.spec.device)

    def fit(
        self, state: State, steps: range, on_step: Callable[[Tensor, float], None]
    ) -> str | None:
        """Take steps of the stage; what ended them early, if something did.

        Args:
            state: before the first of them.
            steps: their numbers in the stage.
            on_step: called after each with its loss and the time when it started.
        """
        spec = self.spec
        self.baseline.begin(self._settings(state, steps.start, on_step))
        if steps:
            fabric = make_fabric(spec.device, spec.precision)
            batches = Batches(self.stream(state.position), len(steps), self.n_micro)
            try:
                train(self.baseline, batches, fabric)
            except DivergenceError as error:
                return str(error)
        return None

    def _settings(self, state: State, n_done: int, on_step: Callable[[Tensor, float], None]) -> Fit:
        spec = self.spec
        decay, rewarm = spec.rate["decay"], spec.rewarm
        return Fit(
            model=state.model,
            moments=state.moments,
            is_new=state.is_new,
            frozen=spec.frozen,
            optimizer=OptimizerConfig(**spec.optimizer),
            rate=RateCurve(**spec.rate | {"decay": tuple(decay) if decay else None}),
            rule=spec.rule,
            rewarm=None if rewarm is None else Rewarm(**rewarm),
            budget_flops=spec.budget_flops,
            grown_at=state.grown_at,
            start_flops=state.start.flops,
            n_done=n_done,
            step_flops=spec.step_flops,
            is_compiled=spec.is_compiled,
            on_step=on_step,
        )

    def stream(self, position: Position) -> ByteStream:
        """Training text from `position` on."""
        return ByteStream(
            text=self.read.train,
            seq_len=int(self.spec.model["seq_len"]),
            batch_size=self.spec.batch_size,
            seed=self.spec.seed,
            allow_repeats=self.spec.allow_repeats,
            first_window=position.window - self.spec.first_window,
        )
