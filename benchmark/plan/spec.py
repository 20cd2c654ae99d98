"""What a stage is, as plain values, and what it leaves for the planner.

A stage trains one model of fixed sizes between two marks of the budget. Its id hashes everything
that determines its result, its parent's id included, so runs that begin alike share stages: each
is trained once and charged to every run it belongs to.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

import torch

from benchmark.base.digest import code
from benchmark.base.errors import ConfigError
from benchmark.base.plugins import import_class
from benchmark.growth.schedule import Point
from benchmark.model.cost import Position, training_flops_per_token
from benchmark.model.size_rule import SizeRule
from benchmark.model.transformer import ModelConfig, Transformer
from benchmark.training.baseline import Baseline
from benchmark.training.memory import step_bytes
from benchmark.training.optim import OptimizerConfig, optimizer_flops
from benchmark.training.shortage import micro_batches

RELEASES = {"torch": str(torch.__version__), "pytorch-lightning": version("pytorch-lightning")}
"""What does the arithmetic here."""

USABLE = 0.9
"""Share of a GPU's memory that a step may be planned to fill; libraries take some."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """Everything that determines a stage's result, as plain values."""

    code: str
    """Digest of the harness's science modules."""

    device: str
    """Kind of device, "cpu" or "cuda": each rounds in its own way."""

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

    optimizer_code: str
    """Digest of the code of an optimizer that the suite names; empty for AdamW."""

    model_class: str
    grows_from: dict[str, Any] | None
    """Sizes before the growth that opens the stage, if one does."""

    grows_from_class: str
    """Architecture before that growth; empty if there is none."""

    n_grown: int
    """Growths so far, this one included."""

    frozen: tuple[str, ...] = ()
    """Parameters that rest."""

    state_policy: str
    rewarm: dict[str, Any] | None
    """The re-warm-up that is under way."""

    optimizer: dict[str, Any]
    rate: dict[str, Any]
    size_rule: dict[str, Any]
    """Factors on the rate and on initial weights, by tensor."""

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
    own_text: dict[str, Any] | None = None
    """Manifest of the corpus that is read instead of the suite's, if one is."""

    first_window: int = 0
    """Windows that earlier stages have read of other texts."""

    @cached_property
    def id(self) -> str:
        """Content address; classes count by name and code, not by where their modules lie."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        text = json.dumps(without_modules(values), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def rule(self) -> SizeRule:
        """Factors on the rate and on initial weights, by tensor."""
        return SizeRule(**self.size_rule | {"base": ModelConfig(**self.size_rule["base"])})

    @cached_property
    def step_flops(self) -> float:
        """Charge of one optimizer step."""
        optimizer = OptimizerConfig(**self.optimizer)
        return step_flops(self._shell, self.batch_size, self.frozen, optimizer)

    @cached_property
    def optimizer_flops(self) -> float:
        """Part of that charge for the optimizer's own products of matrices."""
        return optimizer_flops(self._shell, OptimizerConfig(**self.optimizer), self.frozen)

    @property
    def _shell(self) -> Transformer:
        cls = import_class(self.model_class, Transformer, "model_class")
        return cls.shell(ModelConfig(**self.model))

    @property
    def n_params(self) -> int:
        """Parameters of its model."""
        return sum(parameter.numel() for parameter in self._shell.parameters())

    def step_bytes(self, n_micro: int = 1) -> int:
        """Estimate of what a step takes on a GPU, its batch in so many micro-batches."""
        n_tokens = self.batch_size // n_micro * self._shell.config.seq_len
        return step_bytes(self._shell, n_tokens, is_half=self.precision == "bf16-mixed")

    def micro_batches(self, n_bytes: float) -> int:
        """The fewest micro-batches of which so much memory is taken to hold one at a time."""
        numbers = list(micro_batches(self.batch_size))
        return next((n for n in numbers if self.step_bytes(n) <= USABLE * n_bytes), numbers[-1])


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

    log_bytes: int = 0
    """Size of its event log, by which one that was damaged later is noticed."""


def without_modules(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, in which classes have lost the modules that they are imported from."""
    found = dict(tree)
    for key, value in tree.items():
        if key in _CLASS_KEYS and isinstance(value, str):
            found[key] = value.rpartition(":")[2]
        elif isinstance(value, dict) and key != "args":
            found[key] = without_modules(value)
    return found


_CLASS_KEYS = frozenset({"target", "baseline", "model_class", "grows_from_class"})
"""Keys whose text is "package.module:Class"; `args` are a class's own and stay as they are."""


def method_code(baseline: Baseline) -> str:
    """Digest of a method's own code: its class, its operators and its architectures."""
    operators = (type(operator) for operator in baseline.operators)
    models = (baseline.source_class or baseline.model_class, baseline.model_class)
    return code(type(baseline), *operators, *models)


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
    shell: Transformer, batch_size: int, frozen: tuple[str, ...], optimizer: OptimizerConfig
) -> float:
    """Training FLOPs of one step of a model with the sizes of this shell."""
    of_model = _token_flops(shell, tuple(frozen)) * batch_size * shell.config.seq_len
    return of_model + optimizer_flops(shell, optimizer, frozen)


@cache
def _token_flops(shell: Transformer, frozen: tuple[str, ...]) -> float:
    """Known from then on: a plan asks thousands of times for a few dozen."""
    return training_flops_per_token(shell, frozen)
