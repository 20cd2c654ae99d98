"""What an architecture of transformers looks like, as data: tensors, their axes, and sizes.

A file says under which field of config.json each size stands and which axes each tensor has, in
the words of the benchmark. A head is a key, a value and its queries, so the axis of heads has two
names: `n_kv_head`, along which whole groups grow, and `query`, the queries of one group.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from torch import nn
from typing_extensions import override

from benchmark.base.errors import CheckpointError, ConfigError
from benchmark.base.paths import display_path
from benchmark.model.transformer import Axes, FixedAxis, Kind, ModelConfig, Transformer
from benchmark.plan.reading import filled, parse, read

FOLDER = Path(__file__).with_name("architectures")
AXES = ("d_model", "n_kv_head", "query", "d_head", "d_ff", "vocab_size", "seq_len")
GROWING = ("d_model", "n_layer", "n_head", "n_kv_head", "d_ff")
"""Sizes that a user may ask for, in Hugging Face's sense: n_head counts queries."""

NOT_PER_LAYER = ("architectures", "bos_token_id", "eos_token_id", "pad_token_id")
KINDS = {"map": Kind.MAP, "table": Kind.TABLE, "gain": Kind.GAIN, "shift": Kind.SHIFT}


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One tensor of each block (a star in its name stands for the block's number), or of none."""

    kind: Literal["map", "table", "gain", "shift", "copy"] = "map"
    """A bias is a map that contracts nothing; what is to "copy" has no axes and may be missing."""

    out: str = ""
    """Produced axes, in the order in which they lie in memory; "qkv:3" is one of fixed length."""

    into: str = ""
    """Contracted axes."""

    transposed: bool = False
    """Whether contracted axes are stored first."""

    shares_eps: bool = False
    """Whether a norm with the same epsilon as those over d_model reads what it produces."""

    role: Literal["", "last norm", "head"] = ""
    """What a tied head concerns: there is none of its own, and the last norm splits its sums."""

    when: str = ""
    """The field of config.json that must be true for the tensor to be there."""

    def axes(self, config: ModelConfig, *, by_query: bool) -> Axes:
        """Its axes as operators want them.

        Args:
            config: sizes.
            by_query: whether what the operators call a head is one query of each group.
        """
        fixed = FixedAxis("group" if by_query else "query", config.n_query)
        names = {"query": "n_head", "n_kv_head": fixed} if by_query else {
            "n_kv_head": "n_head", "query": fixed
        }  # fmt: skip
        out, into = (
            tuple(_fixed(name) if ":" in name else names.get(name, name) for name in text.split())
            for text in (self.out, self.into)
        )
        if self.role == "last norm" and config.tied:
            out, into = into, out
        if self.role == "head" and config.tied:  # it repeats the table, where a file has it
            return Axes(out + into, kind=Kind.TABLE)
        return Axes(out, into, KINDS[self.kind], self.shares_eps)


def _fixed(text: str) -> FixedAxis:
    name, _, length = text.partition(":")
    return FixedAxis(name, int(length))


@dataclass(frozen=True)
class Named:
    """A tensor of a checkpoint."""

    name: str
    """For operators, such as "blocks.3.mlp.up_proj.weight"."""

    file_name: str
    """In the files, some of which leave out the architecture's prefix."""

    spec: TensorSpec


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What one file says."""

    model_types: list[str]
    """Values of `model_type` in config.json."""

    norm: Literal["rmsnorm", "layernorm"]
    eps: str
    """Field of the norms' epsilon."""

    positions: Literal["rotary", "learned"]
    prefix: str = ""
    """Beginning of names that some files leave out."""

    divides: bool = False
    """Whether transformers wants d_model to be a multiple of n_head."""

    sizes: dict[str, str]
    """Fields by size. Without one for d_head it is d_model / n_head; other sizes that a config
    leaves out: n_kv_head is n_head, d_ff is 4 d_model."""

    defaults: dict[str, bool | int] = field(default_factory=dict[str, bool | int])
    """Values of fields that a config leaves out; others are false."""

    per_layer: list[str] = field(default_factory=list[str])
    """Fields with an entry for each block, which grow with n_layer."""

    depth_needs: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """Fields that treat blocks by their number, so that n_layer cannot grow if they are true,
    unless another field says what each block is."""

    tensors: dict[str, TensorSpec]

    def __post_init__(self) -> None:
        for name, spec in self.tensors.items():
            for axis in f"{spec.out} {spec.into}".split():
                if axis not in AXES and not axis.partition(":")[2].isdigit():
                    raise ConfigError(
                        f"tensors.{name}: unknown axis {axis!r}; allowed: {', '.join(AXES)}, and "
                        "NAME:LENGTH for one that never grows"
                    )


def load_architecture(model_type: str, file: Path | None = None) -> Architecture:
    """The packaged architecture of a model type, or that of a user's file.

    Raises:
        ConfigError: there is none, or the file is malformed.
    """
    paths = sorted(FOLDER.glob("*.yaml")) if file is None else [file]
    known = {path: filled(Architecture, (f"{display_path(path)}: ", read(path))) for path in paths}
    for architecture in known.values():
        if model_type in architecture.model_types:
            return architecture
    types = sorted(name for architecture in known.values() for name in architecture.model_types)
    raise ConfigError(
        f"model_type {model_type!r} of config.json is none of {', '.join(types)}; another "
        "architecture needs a file of its own (--architecture, see docs/checkpoints.md)"
    )


@dataclass(frozen=True)
class Layout:
    """An architecture, with the config of one checkpoint."""

    architecture: Architecture
    fields: Mapping[str, Any]
    """What config.json holds."""

    def value(self, name: str) -> Any:  # noqa: ANN401 - whatever JSON says
        """A field, or what stands for it where it is missing."""
        found = self.fields.get(name)
        return self.architecture.defaults.get(name) if found is None else found

    def _size(self, name: str, otherwise: int | None = None) -> int:
        key = self.architecture.sizes.get(name, "")
        found = otherwise if (found := self.value(key)) is None else found
        if type(found) is not int or found < 1:
            what = f"{key} ({name})" if key else name
            raise CheckpointError(f"config.json: {what} must be a whole number, got {found!r}")
        return found

    @cached_property
    def config(self) -> ModelConfig:
        """Sizes and variant in the benchmark's words: a head is a key, a value and its queries."""
        n_head, d_model = self._size("n_head"), self._size("d_model")
        n_kv_head = self._size("n_kv_head", n_head)
        if n_head % n_kv_head or (d_model % n_head and "d_head" not in self.architecture.sizes):
            raise CheckpointError(
                f"config.json: n_head={n_head} with n_kv_head={n_kv_head}, d_model={d_model}"
            )
        return ModelConfig(
            d_model=d_model,
            n_layer=self._size("n_layer"),
            n_head=n_kv_head,
            n_query=n_head // n_kv_head,
            d_head=self._size("d_head", d_model // n_head),
            d_ff=self._size("d_ff", 4 * d_model),
            vocab_size=self._size("vocab_size"),
            seq_len=self._size("seq_len", 1),
            norm=self.architecture.norm,
            positions=self.architecture.positions,
            tied=bool(self.value("tie_word_embeddings")),
        )

    def target(self, to: list[str]) -> ModelConfig:
        """Sizes to grow to.

        Args:
            to: texts such as "n_layer=40", "d_model=1.5*d_model"; n_head counts queries. Where
                every query has a key of its own, n_kv_head follows n_head; else it stays.

        Raises:
            ConfigError: a size is not known or does not fit the architecture.
        """
        small, wanted = self.config, parse(to)
        n_head = small.n_head * small.n_query
        named = replace(small, n_head=n_head, own=(("n_kv_head", small.n_head),))
        if unknown := sorted(wanted.keys() - set(GROWING)):
            raise ConfigError(f"--to {unknown[0]}: what grows is one of {', '.join(GROWING)}")
        for name, value in wanted.items():
            if type(value) not in (int, str):
                raise ConfigError(
                    f"--to {name} must be a whole number or text such as 1.5*{name}, got {value!r}"
                )
        asked = named.resized(wanted)
        follows = small.n_query == 1 and "n_kv_head" not in wanted
        n_kv_head = asked.n_head if follows else asked.size("n_kv_head")
        self._check_heads(asked, n_kv_head)
        large = replace(asked, n_head=n_kv_head, n_query=asked.n_head // n_kv_head, own=())
        if large.n_layer > small.n_layer:
            self._check_layers()
        return large

    def _check_heads(self, asked: ModelConfig, n_kv_head: int) -> None:
        """Refuse numbers of heads that the architecture cannot have, or cannot be grown to."""
        small, n_head = self.config, asked.n_head
        found = f"n_head={n_head} with n_kv_head={n_kv_head}"
        if n_head % n_kv_head:
            raise ConfigError(f"--to: {found}: each key must have as many queries as the others")
        n_query = n_head // n_kv_head
        if n_query < small.n_query:
            raise ConfigError(
                f"--to: {found} leaves {n_query} of {small.n_query} queries for each key; "
                f"grow n_head to a multiple of {small.n_query * n_kv_head} as well"
            )
        has_groups = any("query" in spec.out.split() for spec in self.architecture.tensors.values())
        if n_query > 1 and not has_groups:
            raise ConfigError(f"--to: {found}: here every query has a key of its own")
        is_derived = "d_head" not in self.architecture.sizes
        if is_derived and asked.d_model != n_head * small.d_head:
            raise ConfigError(
                f"--to: here d_head={small.d_head} is d_model / n_head, so the two grow by one "
                f"factor; got d_model={asked.d_model}, n_head={n_head}"
            )
        if self.architecture.divides and asked.d_model % n_head:
            raise ConfigError(
                f"--to: transformers wants d_model to be a multiple of n_head here, got "
                f"d_model={asked.d_model}, n_head={n_head}"
            )

    def _check_layers(self) -> None:
        """Refuse to grow n_layer where the config says something of each block that is not known.

        Raises:
            CheckpointError: naming the field.
        """
        known = {*self.architecture.per_layer, *NOT_PER_LAYER}
        for name, value in self.fields.items():
            is_list = isinstance(value, list) and len(value) == self.config.n_layer
            if is_list and name not in known:
                raise CheckpointError(
                    f"config.json: {name} has an entry for each of {len(value)} blocks, and the "
                    "architecture's file does not list it under per_layer"
                )
        for name, instead in self.architecture.depth_needs.items():
            if self.value(name) and not (instead and self.value(instead)):
                needed = f", unless {instead} lists them" if instead else ""
                raise CheckpointError(
                    f"config.json: {name} is true, which treats blocks by their number; growing "
                    f"n_layer would change the old ones{needed}"
                )

    def grown_fields(
        self, large: ModelConfig, eps_scale: float, sources: list[int]
    ) -> dict[str, Any]:
        """What config.json of the large checkpoint holds.

        Args:
            large: its sizes.
            eps_scale: factor on the epsilon of norms.
            sources: number of the small block that each large one starts from.
        """
        architecture, grown = self.architecture, dict(self.fields)
        sizes = large.sizes() | {"n_head": large.n_head * large.n_query, "n_kv_head": large.n_head}
        grown |= {key: sizes[name] for name, key in architecture.sizes.items()}
        if eps_scale != 1:
            grown[architecture.eps] = self.eps * eps_scale
        for name in architecture.per_layer:
            if (entries := self.fields.get(name)) and large.n_layer > self.config.n_layer:
                grown[name] = [entries[source] for source in sources]
        return grown

    @property
    def eps(self) -> float:
        """Epsilon of the norms over d_model."""
        if not isinstance(eps := self.fields.get(self.architecture.eps), float):
            raise CheckpointError(
                f"config.json: {self.architecture.eps} must be there, got {eps!r}"
            )
        return eps

    def tensors(self, n_layer: int) -> Iterator["Named"]:
        """Every tensor that a model of so many blocks may have, block after block."""
        specs = self.architecture.tensors.items()
        present = [(pattern, s) for pattern, s in specs if not s.when or self.value(s.when)]
        for is_block, group in groupby(present, key=lambda item: "*" in item[0]):
            patterns = list(group)
            for layer in range(n_layer if is_block else 1):
                for pattern, spec in patterns:
                    _, _, rest = pattern.partition(".*.")
                    name = f"blocks.{layer}.{rest}" if is_block else pattern
                    yield Named(name, pattern.replace("*", str(layer)), spec)

    def outline(self, config: ModelConfig, *, by_query: bool = False) -> "Outline":
        """A model of this architecture without weights."""
        return Outline(self, config, by_query)


class Outline(Transformer):
    """What operators ask a model for, its sizes and the axes of its tensors; it cannot run."""

    def __init__(self, layout: Layout, config: ModelConfig, by_query: bool) -> None:
        nn.Module.__init__(self)
        self.layout, self.config, self.by_query = layout, config, by_query

    @override
    def shell(self, config: ModelConfig) -> "Outline":  # type: ignore[override]
        other = Outline(self.layout, config, self.by_query)
        if (config.n_layer, config.n_query) == (self.config.n_layer, self.config.n_query):
            other._axes = self._axes  # these do not depend on the other sizes
        return other

    @override
    def axes(self) -> dict[str, Axes]:
        return self._axes

    @cached_property
    def _axes(self) -> dict[str, Axes]:
        return {
            tensor.name: tensor.spec.axes(self.config, by_query=self.by_query)
            for tensor in self.layout.tensors(self.config.n_layer)
            if tensor.spec.kind != "copy"
        }


def stored_shape(spec: TensorSpec, config: ModelConfig) -> tuple[int, ...]:
    """Shape of a tensor in a file."""
    axes = spec.axes(config, by_query=False)
    if axes.kind is Kind.TABLE:
        return axes.shape(config)
    sides = [math.prod(map(config.size, side)) for side in (axes.out, axes.into) if side]
    return tuple(sides[::-1] if spec.transposed else sides)
