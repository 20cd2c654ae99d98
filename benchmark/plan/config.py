"""Configurations: frozen dataclasses, filled from YAML and `key=value` overrides.

A suite has one workload and one protocol, shared by every run, and a list of methods; a method may
set only `method.*`. That is the fairness guard: two runs of a suite cannot differ in anything else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmark.base.errors import ConfigError
from benchmark.base.paths import CONFIGS, display_path
from benchmark.base.plugins import PluginConfig, did_you_mean
from benchmark.data.corpora import CorpusConfig
from benchmark.growth.schedule import Ladder
from benchmark.model.transformer import ModelConfig
from benchmark.plan.reading import check, parse, read
from benchmark.training.optim import LearningRateConfig, OptimizerConfig, Rewarm

ROLES = ("control", "rung", "hull", "method")

RANGES = {
    "workload.batch_size": "[1, inf)",
    "protocol.budget_flops": "[1, inf)",
    "protocol.n_evaluations": "[1, inf)",
    "protocol.curve_bytes": "[1, inf)",
    "protocol.eval_batch_size": "[1, inf)",
    "protocol.block_bytes": "[1, inf)",
    "protocol.cuts": "(0, 1]",
    "protocol.rungs": "(0, 1]",
    "protocol.learning_rate.peak": "(0, inf)",
    "protocol.learning_rate.warmup": "(0, 1)",
    "protocol.learning_rate.decay": "(0, 1]",
    "protocol.optimizer.beta1": "[0, 1)",
    "protocol.optimizer.beta2": "[0, 1)",
    "protocol.optimizer.eps": "(0, inf)",
    "protocol.optimizer.weight_decay": "[0, inf)",
    "protocol.optimizer.clip": "(0, inf)",
    "protocol.tuning.trials": "[0, inf)",
    "protocol.tuning.private": "[0, inf)",
    "protocol.tuning.fraction": "(0, 1]",
    "run.workers": "[0, inf)",
    "run.devices": "[1, inf)",
    "run.checkpoint_seconds": "[0, inf)",
    "run.retries": "[0, inf)",
    "run.timeout_seconds": "[0, inf)",
    "run.cache_gigabytes": "[0, inf)",
}
"""Where each number of a suite, or each number of a list, must lie; a bracket includes its end."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
NO_NAMES = ("nan", "na", "n/a", "null", "none", "inf", "true", "false", "local")
"""Names that a table would read as something else, or that a folder has already."""

PLANNED = ("tunes", "trial", "tuned", "levels")
"""Fields of a method that the planner sets; a file that could would escape the fairness guard."""

CHOICES = {
    "protocol.precision": ("32-true", "tf32", "bf16-mixed"),
    "run.device": ("auto", "cpu", "cuda"),
    "run.executor": ("local", "ray"),
    "run.logger": ("none", "tensorboard", "wandb"),
}


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Everything in which one method of a suite may differ from another."""

    name: str = MISSING
    role: str = "method"
    controls: list[str] = field(default_factory=list[str])
    """Further methods of the suite that this one must also beat, such as a target of its own
    architecture trained from scratch."""

    summary: str = ""
    paper: str = ""
    target: str = MISSING
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    budget: float = 1.0
    """The run's own budget as a fraction of C*; below 1 only for annealed rungs of scratch."""

    sizes: dict[str, int | str] = field(default_factory=dict[str, int | str])
    """Sizes instead of the target's, or beside them for architectures that have others; a text
    such as "0.75*d_model" is a multiple of one of the target's."""

    ladder: Ladder = field(default_factory=lambda: Ladder(n_growths=0))
    schedule: PluginConfig | None = None
    state_policy: str | None = None
    rewarm: Rewarm | None = None
    tunable: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Settings of the method's own that its trials may vary, and their bounds: `args.NAME` or
    `schedule.args.NAME`. A file does not inherit them from its `defaults`."""

    tunes: str = ""
    """The default method that a trial, or a run at tuned settings, belongs to. This field and
    those below are set by the planner, never by a method's file."""

    trial: int | None = None
    """Number of the trial; None for a final run."""

    tuned: dict[str, float] = field(default_factory=dict[str, float])
    """Settings of this trial, or those that the best trial had, by dotted name."""

    levels: dict[str, str] = field(default_factory=dict[str, str])
    """Level of every factor, if the method is a cell of a crossed design."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """Equal tuning: so many trials for every method, controls included, in one shared space."""

    trials: int = 0
    """Trials per method and tuning seed, the default setting among them; 0 switches tuning off."""

    fraction: float = 0.25
    """Budget of a trial as a fraction of C*."""

    seeds: list[int] = field(default_factory=list[int])
    """Seeds of the trials, none of which is a final seed."""

    space: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Lowest and highest value of each shared setting: `learning_rate.NAME` or `optimizer.NAME`."""

    private: int = 1
    """Dimensions that a method may add of its own (`tunable`), within the same trials."""

    methods: list[str] = field(default_factory=list[str])
    """Growth methods to tune, all if empty; every control and fixed size is tuned in any case."""


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig:
    """What is learned, by what target, in what batches."""

    corpus: CorpusConfig = MISSING
    target: ModelConfig = field(default_factory=ModelConfig)
    batch_size: int = 8


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How everyone is trained and measured."""

    budget_flops: float = MISSING
    """C*: training FLOPs of one run, causal formula."""

    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    rungs: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0])
    """Fractions of C* at which the compute-matched table reads every run."""

    cuts: list[float] = field(default_factory=list[float])
    """Fractions of C* where stages end beside growths, so that runs share what comes before."""

    n_evaluations: int = 20
    """Held-out evaluations at equal fractions of C*."""

    curve_bytes: int = 32_768
    """Bytes of the validation split behind each point of a curve."""

    eval_batch_size: int = 64
    block_bytes: int = 4096
    """Bytes per stored sum of nats in the final scores."""

    learning_rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    allow_repeats: bool = False
    precision: str = "32-true"
    """Of products in training: float32, "tf32" (float32 rounded to 10 bits on the way into a GPU's
    products, those of growth and evaluation too) or "bf16-mixed". Weights, moments, norms, softmax
    and loss are float32 in all of them."""


@dataclass(frozen=True, kw_only=True)
class FactorsConfig:
    """A crossed design: one method for every combination of one level of each factor."""

    operator: list[str] = field(default_factory=list[str])
    """Methods whose operators, and whose sizes that grow, are compared."""

    state_policy: list[str] = field(default_factory=list[str])
    rewarm: dict[str, Rewarm] = field(default_factory=dict[str, Rewarm])
    """Learning rate after growth, by the level's name."""

    at: list[float] = field(default_factory=list[float])
    """Fractions of C* at which to grow."""

    factor: list[float] = field(default_factory=list[float])
    """Target size over source size, of every size that the operator's ladder names."""


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """Where and how fast; nothing here can change a number in a record but wall-clock.

    But for rounding: another device, and compiled code, sum in another order. Both are part of what
    names a stage.
    """

    results: str = "results/local"
    """Where the folder of the suite's results is; git does not see the default."""

    published: str = "results"
    """Where published results are: a run that is there is not trained again. Empty: all are."""

    cache: str = ".growbench"
    workers: int = 0
    """Parallel single-threaded runs; 0 means one per core, or per GPU where these train."""

    executor: str = "local"
    """What runs the stages: "local", processes of this machine, or "ray", a cluster."""

    address: str = ""
    """Of the cluster, for ray: HOST:PORT or auto; if empty what RAY_ADDRESS says, or else a
    cluster of this machine alone."""

    node_cache: str = ""
    """For ray: a folder of each machine to train in; finished stages are gathered in run.cache.
    Empty means that all machines share the working folder and run.cache."""

    device: str = "auto"
    devices: int = 1
    """GPUs, or processes of a CPU, that share each batch of a run; it must be a multiple. As each
    kind of device, each number of them rounds in its own way."""
    compile: bool = False
    """Whether training steps run through `torch.compile`. It takes a C++ compiler, and a minute for
    each new model; what was compiled is kept in CACHE/compiled."""

    checkpoint_seconds: float = 60.0
    retries: int = 2
    """Attempts at a stage after one that failed."""

    logger: str = "none"
    """Where records are copied to as they come: "tensorboard" (in CACHE/logs) or "wandb"."""

    timeout_seconds: float = 0.0
    """What an attempt at a stage may take, beyond which its runs are given up; 0 means for ever."""

    cache_gigabytes: float = 20.0
    """What checkpoints of finished stages may take; beyond it, those used longest ago are deleted,
    unless a run of the suite goes on from them."""


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """What a machine can do and costs, for `growbench plan --machine`."""

    name: str = MISSING
    summary: str = MISSING
    workers: int = MISSING
    """Stages at once: GPUs, or cores."""

    peak: dict[str, float] = MISSING
    """Dense FLOP/s of one GPU or core, by precision."""

    utilisation: float = MISSING
    """Share of the peak that steps are taken to reach which are large enough."""

    layer_seconds: float = MISSING
    """Least time of a block's part in a training step, however little it computes."""

    stage_seconds: float = MISSING
    """To start and to end a stage."""

    basis: str = MISSING
    """Where the figures above come from: assumed, or measured on what."""

    dollars_per_hour: float = MISSING
    """Of the whole machine."""

    price: str = MISSING
    """Whose price that is."""

    def __post_init__(self) -> None:
        positive = {"workers": self.workers, "utilisation": self.utilisation, **self.peak}
        if wrong := [name for name, value in positive.items() if not value > 0]:
            raise ConfigError(f"machine: {', '.join(wrong)} must be above 0")


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """One comparison."""

    name: str = MISSING
    version: str = MISSING
    purpose: str = ""
    watermark: str | None = None
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    methods: list[str] = field(default_factory=list[str])
    """Names in configs/method, or paths to method files."""

    hull: list[dict[str, int]] = field(default_factory=list[dict[str, int]])
    """Fixed sizes to train at C* for the iso-FLOP hull, each a change from the target."""

    factors: FactorsConfig | None = None
    """A crossed design to add to the methods."""

    run: ExecutionConfig = field(default_factory=ExecutionConfig)


def load_suite(suite: str, overrides: Sequence[str] = (), added: Sequence[str] = ()) -> SuiteConfig:
    """Read a suite, apply overrides, add methods.

    Args:
        suite: a name in configs/suite, or the path of a YAML file; names that this file gives are
            looked for beside it first.
        overrides: `key=value` texts.
        added: further methods, names or paths.

    Raises:
        ConfigError: an unknown suite, file, key or value, in one line.
    """
    path = find("suite", suite)
    raw = read(path, SuiteConfig)
    changes: dict[str, Any] = {}
    for text in overrides:
        change = parse([text], SuiteConfig)
        if _expand_corpus(change, path.parent):  # another corpus, nothing of the one before
            for layer in (raw, changes):
                layer.get("workload", {}).pop("corpus", None)
        changes = _merged(changes, change)
    _expand_corpus(raw, path.parent)
    config = _filled(SuiteConfig, f"{display_path(path)}: ", raw)
    check(changes, SuiteConfig, "")
    config = _merge(config, "", changes)
    checked = cast(SuiteConfig, _to_object(config, f"suite {suite}: "))
    _check(checked)
    methods = [_beside(name, path.parent) for name in checked.methods]
    return replace(checked, methods=[*methods, *added])


def load_corpus(name: str) -> CorpusConfig:
    """Read a corpus manifest from configs/corpus or a path."""
    path = find("corpus", name)
    where = f"{display_path(path)}: "
    return cast(
        CorpusConfig, _to_object(_filled(CorpusConfig, where, read(path, CorpusConfig)), where)
    )


def load_machine(name: str) -> MachineConfig:
    """Read a machine from configs/machine or a path."""
    path = find("machine", name)
    where = f"{display_path(path)}: "
    return cast(
        MachineConfig, _to_object(_filled(MachineConfig, where, read(path, MachineConfig)), where)
    )


def load_method(name: str) -> MethodConfig:
    """Read a method file from configs/method or a path; `defaults: OTHER` merges over another."""
    path = find("method", name)
    where = f"{display_path(path)}: "
    config = _filled(MethodConfig, where, *_layers(path))
    method = cast(MethodConfig, _to_object(config, where))
    _check_name(method.name, f"{where}name")
    if method.role not in ROLES:
        raise ConfigError(f"{where}role must be one of {list(ROLES)}, got {method.role!r}")
    if not 0 < method.budget <= 1:
        raise ConfigError(f"{where}budget must lie in (0, 1], got {method.budget}")
    if method.budget < 1 and method.role != "rung":
        raise ConfigError(
            f"{where}budget {method.budget} is for role rung only, got role {method.role}: what is "
            "compared at C* is trained, and annealed, until there"
        )
    if planned := [key for key in PLANNED if getattr(method, key) not in ("", None, {})]:
        raise ConfigError(f"{where}the planner sets {', '.join(planned)}, a method's file may not")
    return method


def _layers(path: Path, below: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """What a method's file says, after all that it takes from others by `defaults`.

    Raises:
        ConfigError: files take from one another in a circle.
    """
    if path in below:
        circle = " -> ".join(other.stem for other in [*below, path])
        raise ConfigError(f"{display_path(path)}: defaults go in a circle: {circle}")
    raw = read(path, MethodConfig)
    if isinstance(raw.get("rewarm"), str):
        raw["rewarm"] = {"which": raw["rewarm"]}
    parent = raw.pop("defaults", None)
    if parent is None:
        return [raw]
    inherited = _layers(find("method", _beside(str(parent), path.parent)), [*below, path])
    for layer in inherited:
        layer.pop("tunable", None)
    return [*inherited, raw]


def folders(group: str) -> list[Path]:
    """Where names of a group are looked for: configs/ of the working folder, then the package's."""
    return [Path("configs") / group, CONFIGS / group]


def available(group: str) -> list[str]:
    """Names of a group: method, suite, corpus or machine."""
    return sorted({path.stem for folder in folders(group) for path in folder.glob("*.yaml")})


def find(group: str, name: str) -> Path:
    """The file of a named configuration, or the file at that path.

    Raises:
        ConfigError: neither exists; the nearest names are suggested.
    """
    if name.endswith((".yaml", ".yml")):
        if not (path := Path(name).expanduser()).is_file():
            raise ConfigError(f"no {group} file {name}; without .yaml, a name in configs/{group}")
        return path
    for folder in folders(group):
        if name and (path := folder / f"{name}.yaml").is_file() and path.parent == folder:
            return path
    near = did_you_mean(name, available(group))
    raise ConfigError(f"unknown {group} {name!r}{near}")


def _beside(name: str, folder: Path) -> str:
    """The path of a configuration that lies in `folder`, if one does, else `name`."""
    file = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    is_there = folder.resolve().parent.parent != CONFIGS.parent and (folder / file).is_file()
    return str(folder / file) if is_there else name


def as_dict(config: object) -> dict[str, Any]:
    """A dataclass config as plain YAML-ready values."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config)))


def _expand_corpus(layer: dict[str, Any], folder: Path) -> bool:
    """Put the manifest in the place of a corpus's name, if there is one."""
    workload = layer.get("workload")
    corpus = workload.get("corpus") if isinstance(workload, dict) else None
    if isinstance(corpus, str):
        layer["workload"]["corpus"] = read(find("corpus", _beside(corpus, folder)), CorpusConfig)
    return isinstance(corpus, str)


def _check(suite: SuiteConfig) -> None:
    """Refuse values that no workload, protocol or machine can have."""
    _check_name(suite.name, "name")
    for key, interval in RANGES.items():
        found = attrgetter(key)(suite)
        if wrong := [v for v in (found if isinstance(found, list) else [found])
                     if not _lies_in(v, interval)]:  # fmt: skip
            raise ConfigError(f"{key} must lie in {interval}, got {', '.join(map(str, wrong))}")
    for key, allowed in CHOICES.items():
        value = attrgetter(key)(suite)
        if value not in allowed:
            raise ConfigError(f"{key} must be one of {list(allowed)}, got {value!r}")
    _check_places(suite)


def _lies_in(value: float, interval: str) -> bool:
    """Whether a number lies in an interval such as "(0, 1]"."""
    low, high = map(float, interval[1:-1].split(","))
    is_low = value >= low if interval[0] == "[" else value > low
    return is_low and (value <= high if interval[-1] == "]" else value < high)


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or name.lower() in NO_NAMES:
        raise ConfigError(
            f"{where} must be letters, digits, '_', '-' and '.', a letter or digit first, and no "
            f"word such as nan; got {name!r}"
        )


def _check_places(suite: SuiteConfig) -> None:
    """Refuse devices that cannot share a batch, and folders that other machines would not find."""
    if suite.workload.batch_size % suite.run.devices:
        raise ConfigError(
            f"run.devices must divide workload.batch_size={suite.workload.batch_size}, "
            f"got {suite.run.devices}"
        )
    if suite.run.node_cache and not Path(suite.run.node_cache).expanduser().is_absolute():
        raise ConfigError(f"run.node_cache must be an absolute path, got {suite.run.node_cache}")


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(*layers)))


def _filled(schema: type, where: str, *layers: Mapping[str, Any]) -> DictConfig:
    for layer in layers:
        check(layer, schema, where)
    return _merge(OmegaConf.structured(schema), where, *layers)


def _merge(base: DictConfig, where: str, *layers: Mapping[str, Any] | DictConfig) -> DictConfig:
    try:
        return cast(DictConfig, OmegaConf.merge(base, *layers))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}{_reason(error)}") from error


def _reason(error: OmegaConfBaseException) -> str:
    """Key and first line of what OmegaConf says."""
    reason = str(error.msg or error).splitlines()[0]
    return f"{error.full_key}: {reason}" if error.full_key else reason


def _to_object(config: DictConfig, where: str) -> object:
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{where}{missing[0]} is missing")
    try:
        return OmegaConf.to_object(config)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, ConfigError):
            raise ConfigError(f"{where}{error.__cause__}") from error
        raise ConfigError(f"{where}{_reason(error)}") from error
