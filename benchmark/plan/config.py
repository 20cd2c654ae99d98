"""Configurations: frozen dataclasses, filled from YAML and `key=value` overrides.

A suite has one workload and one protocol, shared by every run, and a list of methods; a method may
set only `method.*`. That is the fairness guard: two runs of a suite cannot differ in anything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from benchmark.base.annotations import Count, In, NotNegative, Positive, Share, Size
from benchmark.base.errors import ConfigError
from benchmark.base.paths import CONFIGS, check_name, display_path
from benchmark.base.plugins import PluginConfig, did_you_mean
from benchmark.data.corpora import CorpusConfig
from benchmark.growth.schedule import Ladder
from benchmark.model.transformer import ModelConfig
from benchmark.plan.own_schedule import OwnStage
from benchmark.plan.reading import Mapped, filled, parse, read
from benchmark.training.optim import LearningRateConfig, OptimizerConfig, Rewarm


def is_compiled(asked: bool | None, device: str) -> bool:
    """Whether training steps are compiled: as `run.compile` says, or else on GPUs."""
    return device == "cuda" if asked is None else asked


ROLES = ("control", "rung", "hull", "method")

Precision = Literal["32-true", "tf32", "bf16-mixed"]

Policy = Literal["reset", "carry", "scaled", "asymmetric"]
"""What becomes of the optimizer's state, as `StatePolicy` says it."""

PLANNED = ("tunes", "trial", "tuned", "levels")
"""Fields of a method that the planner sets; a file that could would escape the fairness guard."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Everything in which one method of a suite may differ from another."""

    name: str
    role: str = "method"
    controls: list[str] = field(default_factory=list[str])
    """Further methods of the suite that this one must also beat, such as a target of its own
    architecture trained from scratch."""

    summary: str = ""
    paper: str = ""
    target: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    budget: Share = 1.0
    """The run's own budget as a fraction of C*; below 1 only for annealed rungs of scratch."""

    sizes: dict[str, int | str] = field(default_factory=dict[str, int | str])
    """Sizes instead of the target's, or beside them for architectures that have others; a text
    such as "0.75*d_model" is a multiple of one of the target's."""

    ladder: Ladder = field(default_factory=lambda: Ladder(n_growths=0))
    schedule: PluginConfig | None = None
    state_policy: Policy | None = None
    rewarm: Rewarm | None = None
    stages: list[OwnStage] = field(default_factory=list[OwnStage])
    """What the method does in its own way at each of its sizes, the source's first; empty for the
    schedule and the text that all share."""

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

    trials: Count = 0
    """Trials per method and tuning seed, the default setting among them; 0 switches tuning off."""

    fraction: Share = 0.25
    """Budget of a trial as a fraction of C*."""

    seeds: list[int] = field(default_factory=list[int])
    """Seeds of the trials, none of which is a final seed."""

    space: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Lowest and highest value of each shared setting: `learning_rate.NAME`, `optimizer.NAME` or
    `optimizer.args.NAME`."""

    private: Count = 1
    """Dimensions that a method may add of its own (`tunable`), within the same trials."""

    methods: list[str] = field(default_factory=list[str])
    """Growth methods to tune, all if empty; every control and fixed size is tuned in any case."""


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig:
    """What is learned, by what target, in what batches."""

    corpus: CorpusConfig
    target: ModelConfig = field(default_factory=ModelConfig)
    batch_size: Size = 8


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """How everyone is trained and measured."""

    budget_flops: Annotated[float, In("[1, inf)")]
    """C*: training FLOPs of one run, causal formula."""

    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    rungs: list[Share] = field(default_factory=lambda: [0.25, 0.5, 1.0])
    """Fractions of C* at which the compute-matched table reads every run."""

    cuts: list[Share] = field(default_factory=list[float])
    """Fractions of C* where stages end beside growths, so that runs share what comes before."""

    n_evaluations: Size = 20
    """Held-out evaluations at equal fractions of C*."""

    curve_bytes: Size = 32_768
    """Bytes of the validation split behind each point of a curve."""

    eval_batch_size: Size = 64
    block_bytes: Size = 4096
    """Bytes per stored sum of nats in the final scores."""

    learning_rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    allow_repeats: bool = False
    precision: Precision = "32-true"
    """Of products in training: float32, "tf32" (float32 rounded to 10 bits on the way into a GPU's
    products, those of growth and evaluation too) or "bf16-mixed". Weights, moments, norms, softmax
    and loss are float32 in all of them."""


@dataclass(frozen=True, kw_only=True)
class FactorsConfig:
    """A crossed design: one method for every combination of one level of each factor."""

    operator: list[str] = field(default_factory=list[str])
    """Methods whose operators, and whose sizes that grow, are compared."""

    state_policy: list[Policy] = field(default_factory=list[Policy])
    rewarm: dict[str, Rewarm] = field(default_factory=dict[str, Rewarm])
    """Learning rate after growth, by the level's name."""

    at: list[Annotated[float, In("[0, 1)")]] = field(default_factory=list[float])
    """Fractions of C* at which to grow."""

    factor: list[Annotated[float, In("(1, inf)")]] = field(default_factory=list[float])
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
    workers: Count = 0
    """Parallel single-threaded runs; 0 means one per core, or per GPU where these train."""

    executor: Literal["local", "ray"] = "local"
    """What runs the stages: "local", processes of this machine, or "ray", a cluster whose
    machines share the working folder and run.cache."""

    address: str = ""
    """Of the cluster, for ray: HOST:PORT or auto; if empty what RAY_ADDRESS says, or else a
    cluster of this machine alone."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool | None = None
    """Whether training steps run through `torch.compile`; null means on GPUs. It takes a C++
    compiler, and up to a minute for each new model; what was compiled is kept in CACHE/compiled."""

    checkpoint_seconds: NotNegative = 60.0
    """Least time between two saves of an unfinished stage, also 20 times what a save takes; 0 saves
    after every step."""

    retries: Count = 2
    """Attempts at a stage after one that failed."""

    timeout_seconds: NotNegative = 0.0
    """What an attempt at a stage may take, beyond which its runs are given up; 0 means for ever."""

    cache_gigabytes: NotNegative = 20.0
    """What checkpoints of finished stages may take; beyond it, those used longest ago are deleted,
    unless a run of the suite goes on from them."""


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """What a machine can do and costs, for `growbench plan --machine`."""

    name: str
    summary: str
    device: Literal["cpu", "cuda"]
    workers: Size
    """Stages at once: GPUs, or cores."""

    memory_gigabytes: Positive
    """Of one GPU, or a core's share."""

    peak: dict[str, Positive]
    """Dense FLOP/s of one GPU or core, by precision."""

    utilisation: dict[str, dict[str, Share]]
    """Share of the peak that training steps reach, "eager" and "compiled", by d_model."""

    layer_seconds: NotNegative
    """Least time of a block's part in a training step, however little it computes."""

    stage_seconds: NotNegative
    """To start and to end a stage."""

    compile_seconds: NotNegative = 0.0
    """To compile one model, which every worker does."""

    basis: str
    """Where the figures above come from: assumed, or measured on what."""

    dollars_per_hour: NotNegative
    """Price of an hour of the machine, all its workers included."""

    price: str
    """Whose price that is."""

    def __post_init__(self) -> None:
        for kind, table in self.utilisation.items():
            if kind not in ("eager", "compiled") or not table or not all(map(str.isdigit, table)):
                raise ConfigError(
                    f"utilisation of machine {self.name} must be of eager or compiled, shares by "
                    f"d_model such as {{128: 0.06}}; got {kind}: {table}"
                )


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """One comparison."""

    name: str
    version: str
    purpose: str = ""
    watermark: str | None = None
    workload: WorkloadConfig
    protocol: ProtocolConfig
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
    layers = [_layer(path, SuiteConfig)]
    layers += [("", parse([text], SuiteConfig)) for text in overrides]
    for i, (_, layer) in enumerate(layers):
        workload = layer.get("workload")
        if isinstance(workload, dict) and _expand_corpus(
            workload, path.parent
        ):  # another corpus, nothing of the one before
            for _, below in layers[:i]:
                below.get("workload", {}).pop("corpus", None)
    config = filled(SuiteConfig, *layers, where=layers[0][0])
    _check(config)
    files = [_files("method", name, path.parent) for name in config.methods]
    methods = [
        str(next(iter(found), name)) for name, found in zip(config.methods, files, strict=True)
    ]
    return replace(config, methods=[*methods, *added])


def load_corpus(name: str) -> CorpusConfig:
    """Read a corpus manifest from configs/corpus or a path."""
    return filled(CorpusConfig, _layer(find("corpus", name), CorpusConfig))


def load_machine(name: str) -> MachineConfig:
    """Read a machine from configs/machine or a path."""
    return filled(MachineConfig, _layer(find("machine", name), MachineConfig))


def _layer(path: Path, schema: type) -> tuple[str, Mapped]:
    """What messages about a file begin with, and its content."""
    return f"{display_path(path)}: ", read(path, schema)


def load_method(name: str) -> MethodConfig:
    """Read a method file from configs/method or a path.

    `defaults: OTHER` in it merges it over a preset (configs/preset) or over another method.
    """
    path = find("method", name)
    where = f"{display_path(path)}: "
    method = filled(MethodConfig, *_layers(path), where=where)
    check_name(method.name, f"{where}name")
    if method.role not in ROLES:
        raise ConfigError(f"{where}role must be one of {list(ROLES)}, got {method.role!r}")
    if method.budget < 1 and method.role != "rung":
        raise ConfigError(
            f"{where}budget {method.budget} is for role rung only, got role {method.role}: what is "
            "compared at C* is trained, and annealed, until there"
        )
    if planned := [key for key in PLANNED if getattr(method, key) not in ("", None, {})]:
        raise ConfigError(f"{where}the planner sets {', '.join(planned)}, a method's file may not")
    return method


def _layers(path: Path, above: Sequence[Path] = ()) -> list[tuple[str, Mapped]]:
    """What a method's file says, after all that it takes from others by `defaults`.

    A name means the first file that is none of those `above`: one's own ligo.yaml may build upon
    the packaged one.
    """
    (where, raw), above = _layer(path, MethodConfig), [*above, path]
    if isinstance(raw.get("rewarm"), str):
        raw["rewarm"] = {"which": raw["rewarm"]}
    for stage in raw.get("stages") or ():
        if isinstance(stage, dict):
            _expand_corpus(stage, path.parent)
    if (parent := raw.pop("defaults", None)) is None:
        return [(where, raw)]
    if not isinstance(parent, str):
        raise ConfigError(f"{where}defaults must name a preset or a method, got {parent!r}")
    named = [*_files("preset", parent, path.parent), *_files("method", parent)]
    found = named or [find("method", parent)]
    files = [file for file in found if not any(file.samefile(other) for other in above)]
    if not files:
        circle = " -> ".join([*(other.stem for other in above), Path(parent).stem])
        raise ConfigError(f"{where}defaults go in a circle: {circle}")
    inherited = _layers(files[0], above)
    for _, layer in inherited:
        layer.pop("tunable", None)
    return [*inherited, (where, raw)]


YAML = (".yaml", ".yml")
FOLDERS = (Path("configs"), CONFIGS)
"""Where the folders of all groups lie: those of the working folder, then the package's."""


def available(group: str) -> list[str]:
    """Names of a group: method, preset, suite, corpus or machine."""
    return sorted({path.stem for folder in FOLDERS for path in (folder / group).glob("*.yaml")})


def find(group: str, name: str, beside: Path | None = None) -> Path:
    """The file of that name or path, looked for in folder `beside` first.

    Raises:
        ConfigError: there is none; the nearest names are suggested.
    """
    if found := _files(group, name, beside):
        return found[0]
    if name.endswith(YAML):
        raise ConfigError(f"no {group} file {name}; without .yaml, a name in configs/{group}")
    own = f"{name}.yaml"
    near = f"; did you mean {own}?" if Path(own).is_file() else did_you_mean(name, available(group))
    raise ConfigError(
        f"unknown {group} {name!r}{near} (looked beside the suite, in configs/{group} here, and "
        "among those of `growbench list`)"
    )


def _files(group: str, name: str, beside: Path | None = None) -> list[Path]:
    """Files of that name: those `beside`, unless the package's; then those of the group."""
    file = name if name.endswith(YAML) else f"{name}.yaml"
    is_own = beside is not None and beside.resolve().parent != CONFIGS
    paths = [beside / file] if beside is not None and is_own else []
    paths += [Path(name).expanduser()] if file == name else [x / group / file for x in FOLDERS]
    return [path for path in paths if path.is_file()]


def _expand_corpus(layer: Mapped, folder: Path) -> bool:
    """Put the manifest in the place of a corpus's name, if there is one."""
    corpus = layer.get("corpus")
    if isinstance(corpus, str):
        layer["corpus"] = read(find("corpus", corpus, folder), CorpusConfig)
    return isinstance(corpus, str)


def _check(suite: SuiteConfig) -> None:
    """Refuse names that nothing can carry, and places that other machines would not find."""
    check_name(suite.name, "name")
    for level in suite.factors.rewarm if suite.factors else ():
        check_name(level, "a level of factors.rewarm", reserved=())
    run = suite.run
    values = {"version": suite.version, "run.cache": run.cache, "run.results": run.results}
    if {} in suite.hull:
        raise ConfigError("hull: each fixed size must name what differs from the target, got {}")
    if empty := [key for key, value in values.items() if not value.strip()]:
        raise ConfigError(f"{empty[0]} must not be empty")
    if suite.protocol.learning_rate.scale == "mup" and (
        suite.workload.target.tied or suite.protocol.optimizer.target
    ):
        raise ConfigError(
            "protocol.learning_rate.scale is mup, which is derived for Adam and a head of its own; "
            "allowed: workload.target.tied false, no protocol.optimizer.target"
        )
