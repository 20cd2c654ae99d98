"""The decoder-only transformer that every method trains, and the names of its parameters' axes.

Pre-norm, bias-free, no dropout; RMSNorm or LayerNorm, rotary or learned positions, GELU or SwiGLU,
tied or untied head, queries and keys normalised or not. A head is a key, a value and one query, or
a group of them (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245). Its size and its
number of queries are fixed under growth: wider means more heads. Queries, key and value are one
product, as are gate and up; both carry an axis of fixed length for it.

Other architectures subclass `Transformer` and replace what its factory methods make (`linear`,
`norm`, `block`); cost, growth and optimizer follow from the axes that the parts declare.

Shape suffixes (after Shazeer): B batch, T time, D d_model, H n_head, K d_head, F d_ff, V vocab; Q
queries of a head and its key.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.model.kernels import attention, linear, rms_norm

MULTIPLE = re.compile(r"((?P<factor>\d+(\.\d+)?) ?\* ?)?(?P<of>[a-z_]+)")
"""A size that is a multiple of another one."""

LARGE = 4096
"""Vocabulary from which on a loss takes the logits in parts (`large_head`, ADR 0044)."""

CHOICES = {
    "norm": ("rmsnorm", "layernorm"),
    "positions": ("rotary", "learned"),
    "activation": ("gelu", "swiglu"),
}


class FixedAxis(str):
    """Name of a parameter axis that no method grows, with its length.

    Along it lie so many linear maps of their own: by default one at each entry, as for query, key
    and value.
    """

    length: int
    n_maps: int

    def __new__(cls, name: str, length: int, n_maps: int = 0) -> Self:
        """The name, which is what the axis is compared by."""
        axis = super().__new__(cls, name)
        axis.length, axis.n_maps = length, n_maps or length
        return axis

    def __getnewargs__(self) -> tuple[str, int, int]:  # type: ignore[override]
        return str(self), self.length, self.n_maps


GATE_UP, QK = FixedAxis("gate_up", 2), FixedAxis("qk", 2)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and variant of one transformer; equal configs mean the same architecture.

    Sizes that only some architectures have are in `own`; they are read like the others:
    `config.size("n_token")`, `config.n_token`.
    """

    d_model: int = 64
    n_layer: int = 2
    n_head: int = 4
    """Keys and values; with `n_query` above 1 that is what others call n_kv_head."""

    d_head: int = 16
    n_query: int = 1
    """Queries of each head: others call n_head * n_query the number of heads."""

    d_ff: int = 256
    vocab_size: int = 256
    seq_len: int = 128
    own: tuple[tuple[str, int], ...] = ()
    """Names and values of the sizes that a subclass of `Transformer` declares (`own_sizes`)."""

    norm: str = "rmsnorm"
    positions: str = "rotary"
    activation: str = "gelu"
    tied: bool = False
    qk_norm: bool = False
    """Whether an RMSNorm over d_head normalises queries and keys before they turn (Henry et al.
    2020, arXiv:2010.04245, as Qwen3 has it: one gain for queries, one for keys)."""

    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        own = tuple(sorted((str(name), size) for name, size in dict(self.own).items()))
        object.__setattr__(self, "own", own)
        for name, size in self.sizes().items():
            if size < 1:
                raise ConfigError(f"model size {name} must be at least 1, got {size}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"model {name} must be one of {list(allowed)}, got {getattr(self, name)!r}"
                )
        if not 0 < self.norm_eps < math.inf:
            raise ConfigError(f"model norm_eps must be above 0 and finite, got {self.norm_eps}")
        if self.d_head % 2 and self.positions == "rotary":
            raise ConfigError(f"d_head must be even for rotary positions, got {self.d_head}")

    def sizes(self) -> dict[str, int]:
        """Every integer size by name, in declaration order, then the architecture's own."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: v for name, v in values.items() if type(v) is int} | dict(self.own)

    def variant(self) -> dict[str, object]:
        """Everything but the sizes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: v for name, v in values.items() if type(v) is not int and name != "own"}

    def __getattr__(self, name: str) -> int:
        """A size of the architecture's own."""
        for own, size in self.__dict__.get("own", ()):
            if own == name:
                return int(size)
        raise AttributeError(f"{type(self).__name__} has no size {name!r}")

    def resized(self, sizes: Mapping[str, int | str]) -> "ModelConfig":
        """The same variant with some sizes changed.

        Args:
            sizes: by name, numbers or multiples of this config's own, such as "0.75*d_model".

        Returns:
            A config; names that `ModelConfig` does not have are in its `own`.

        Raises:
            ConfigError: a text that is not like "0.75*d_model", or not a whole number here.
        """
        numbers = {n: v if isinstance(v, int) else self._multiple(n, v) for n, v in sizes.items()}
        shared = {name: v for name, v in numbers.items() if name in self.size_names()}
        own = dict(self.own) | {name: v for name, v in numbers.items() if name not in shared}
        return replace(self, own=tuple(own.items()), **cast(Any, shared))

    def _multiple(self, name: str, text: str) -> int:
        match = MULTIPLE.fullmatch(text)
        if match is None or match["of"] not in self.sizes():
            raise ConfigError(
                f"model size {name} must be an integer or a multiple of one of "
                f"{list(self.sizes())}, such as '0.75*d_model', got {text!r}"
            )
        size = float(match["factor"] or 1) * self.sizes()[match["of"]]
        if not size.is_integer():
            raise ConfigError(f"model size {name}={text} is {size:g}, not a whole number")
        return int(size)

    @property
    def qkv(self) -> FixedAxis:
        """Axis of a head's queries, its key and its value."""
        return FixedAxis("qkv", self.n_query + 2)

    @property
    def heads(self) -> tuple[str, ...]:
        """Axes of what attention gives: of each head d_head features for each query."""
        queries = (FixedAxis("query", self.n_query),) if self.n_query > 1 else ()
        return (*queries, "n_head", "d_head")

    @classmethod
    def size_names(cls) -> frozenset[str]:
        """Names of the sizes that every architecture has."""
        return frozenset(field.name for field in fields(cls) if field.type is int)

    def size(self, axis: str) -> int:
        """Length of a named parameter axis.

        Args:
            axis: name of a size, or a `FixedAxis`.

        Returns:
            Number of coordinates.

        Raises:
            ConfigError: the size is left out, and this architecture has the axis.
        """
        if isinstance(axis, FixedAxis):
            return axis.length
        if axis not in (sizes := self.sizes()):
            raise ConfigError(f"this architecture needs the model size {axis}, got none")
        return sizes[axis]


class Kind(Enum):
    """What a tensor does with its axes; growth rules differ by it."""

    MAP = "linear map"
    TABLE = "look-up table"
    GAIN = "elementwise gain of a norm"
    SHIFT = "elementwise shift of a norm, zero along new features"
    CONSTANT = "scalar that is no parameter, such as the epsilon of a norm"


@dataclass(frozen=True)
class Axes:
    """Names of a tensor's axes: produced ones (`out`), then contracted ones (`into`).

    Repeating a produced coordinate copies a feature; repeating a contracted one splits a sum. The
    gain of the last norm before a tied head counts as contracted: it is where the sum over
    repeated features can be split without touching the shared table.
    """

    out: tuple[str, ...] = ()
    into: tuple[str, ...] = ()
    kind: Kind = Kind.MAP
    shares_eps: bool = False
    """Whether a norm with the same epsilon as those over d_model reads it: both scale together."""

    @property
    def names(self) -> tuple[str, ...]:
        """Axis of each dimension of the unflattened tensor."""
        return self.out + self.into

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Unflattened shape of the tensor in a model of this config."""
        return tuple(config.size(axis) for axis in self.names)


class Part(nn.Module, ABC):
    """A leaf of the model that names the axes of its tensors and states its cost."""

    axes: dict[str, Axes]
    """Axes of each parameter and buffer, by its name in this module."""

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates per token, forward; element-wise work is not counted."""

    @abstractmethod
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        """Draw the initial weights of a model `n_layer` blocks deep."""


class FreePart(Part):
    """A part that multiplies no matrices: look-ups and element-wise work are not counted."""

    @property
    @override
    def macs(self) -> int:
        return 0


def draw_map(weight: Tensor, axes: Axes, generator: torch.Generator | None, n_layer: int) -> Tensor:
    """Fill a linear map: normal, variance 1 / fan-in, residual writes a further 1 / (2 n_layer).

    The depth factor is that of GPT-2 (Radford et al. 2019), section 2.3.

    Args:
        weight: (out, into), both flattened; changed in place.
        axes: of the map; whoever writes to d_model alone is a residual write.
        generator: source of randomness.
        n_layer: blocks of the model.

    Returns:
        `weight` itself.
    """
    is_residual_write = axes.out == ("d_model",)
    std = weight.shape[1] ** -0.5 / math.sqrt(2 * n_layer if is_residual_write else 1)
    return nn.init.normal_(weight, std=std, generator=generator)


class Linear(Part):
    """Bias-free linear map from the axes `into` to the axes `out`."""

    def __init__(self, config: ModelConfig, out: tuple[str, ...], into: tuple[str, ...]) -> None:
        super().__init__()
        self.axes = {"weight": Axes(out, into)}
        n_out = math.prod(config.size(axis) for axis in out)
        n_in = math.prod(config.size(axis) for axis in into)
        self.weight = nn.Parameter(torch.empty(n_out, n_in))

    @property
    @override
    def macs(self) -> int:
        return self.weight.numel()

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        draw_map(self.weight, self.axes["weight"], generator, n_layer)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class Embedding(FreePart):
    """Look-up table from the axis `row` to d_model features."""

    def __init__(self, config: ModelConfig, row: str) -> None:
        super().__init__()
        self.axes = {"weight": Axes((row, "d_model"), kind=Kind.TABLE)}
        self.weight = nn.Parameter(torch.empty(config.size(row), config.d_model))

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        """Normal with standard deviation 0.2, near the scale of what blocks write to the stream."""
        nn.init.normal_(self.weight, std=0.2, generator=generator)

    @override
    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)


class Norm(FreePart):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm without bias, over d_model.

    The epsilon is state of each norm, saved with the weights: exact growth of d_model rescales it.
    """

    def __init__(self, config: ModelConfig, *, feeds_tied_head: bool = False) -> None:
        super().__init__()
        gain = Axes(("d_model",), kind=Kind.GAIN)
        if feeds_tied_head:
            gain = Axes(into=("d_model",), kind=Kind.GAIN)
        self.axes = {"weight": gain, "eps": Axes(kind=Kind.CONSTANT)}
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.register_buffer("eps", torch.tensor(config.norm_eps, dtype=torch.float64))
        self.is_rms = config.norm == "rmsnorm"
        self.epsilon = config.norm_eps  # the buffer's value, read without a device sync
        self.register_load_state_dict_post_hook(Norm._read_epsilon)  # type: ignore[no-untyped-call]

    def _read_epsilon(self, _: object) -> None:
        self.epsilon = float(self.get_buffer("eps"))

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # moves with the weights, but is not rounded when they are cast
        self.eps = torch.tensor(self.epsilon, dtype=torch.float64, device=self.weight.device)
        return self

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        nn.init.ones_(self.weight)

    @override
    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.is_rms:
            return rms_norm(x_BTD, self.weight, self.epsilon)
        return F.layer_norm(x_BTD, self.weight.shape, self.weight, None, self.epsilon)


class QueryKeyNorm(FreePart):
    """RMSNorm of every query and every key over d_head, with a gain for each of the two."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.axes = {"weight": Axes((QK, "d_head"), kind=Kind.GAIN)}
        self.weight = nn.Parameter(torch.ones(QK.length, config.d_head))
        self.epsilon = config.norm_eps

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        nn.init.ones_(self.weight)

    @override
    def forward(self, qk_BTQHK: Tensor) -> Tensor:
        """Queries, then one key."""
        of_query, of_key = self.weight.unbind()
        n_query = qk_BTQHK.shape[2] - 1
        gain_Q1K = torch.stack([*[of_query] * n_query, of_key])[:, None]
        return F.rms_norm(qk_BTQHK, of_key.shape, None, self.epsilon) * gain_Q1K


def rotation(config: ModelConfig) -> Tensor:
    """Cosine and sine of the rotary angles, (T, K / 2, 2) (Su et al. 2021, arXiv:2104.09864)."""
    half = config.d_head // 2
    # on the CPU, as on the meta device of `Transformer.shell` arange takes 2 s to import Dynamo
    index = torch.arange(max(half, config.seq_len), dtype=torch.float64, device="cpu")
    angle = torch.outer(index[: config.seq_len], 10_000.0 ** (-index[:half] / half))
    return torch.stack((angle.cos(), angle.sin()), dim=-1).to(torch.get_default_device())


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, make: "Transformer", config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.qkv_length = config.n_head, config.qkv.length
        self.is_gated = config.activation == "swiglu"
        up = (GATE_UP, "d_ff") if self.is_gated else ("d_ff",)
        self.norm_attn = make.norm(config)
        self.qkv = make.linear(config, (config.qkv, "n_head", "d_head"), ("d_model",))
        self.norm_qk = QueryKeyNorm(config) if config.qk_norm else None
        self.o = make.linear(config, ("d_model",), config.heads)
        self.norm_mlp = make.norm(config)
        self.up = make.linear(config, up, ("d_model",))
        self.down = make.linear(config, ("d_model",), ("d_ff",))

    def attend(self, x_BTD: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
        """Causal multi-head self-attention, before the output map: (B, T, n_query H K)."""
        B, T, _ = x_BTD.shape
        qkv = self.qkv(x_BTD).view(B, T, self.qkv_length, self.n_head, -1)
        qk_BTQHK, v_BTHK = qkv[:, :, :-1], qkv[:, :, -1]
        if self.norm_qk is not None:
            qk_BTQHK = self.norm_qk(qk_BTQHK)
        return attention(qk_BTQHK, v_BTHK, rotation_Tk2)

    def activate(self, up: Tensor) -> Tensor:
        """Hidden features (B, T, F) of the MLP."""
        if not self.is_gated:
            return F.gelu(up)
        gate, value = up.chunk(2, dim=-1)
        return F.silu(gate) * value

    @override
    def forward(self, x_BTD: Tensor, rotation_Tk2: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.o(self.attend(self.norm_attn(x_BTD), rotation_Tk2))
        return x_BTD + self.down(self.activate(self.up(self.norm_mlp(x_BTD))))


class Transformer(nn.Module):
    """Token ids (B, T) to next-token logits (B, T, V).

    Another architecture subclasses this and replaces what `linear`, `norm` or `block` makes. Sizes
    beyond those of `ModelConfig` are declared in `own_sizes`; a method's `sizes` and ladder may
    then name them, and operators grow them like any axis. One that cannot be built in some variant,
    such as with `n_query` above 1, raises `ConfigError`, and the contract leaves it out.

    Args:
        config: sizes and variant.
        generator: draws the initial weights; without one they hold whatever the memory held, for a
            model that is about to be loaded.
    """

    own_sizes: ClassVar[Mapping[str, int]] = {}
    """Further sizes by name, each with a value that suits a tiny model (d_model 8, two heads of 4),
    on which the contract tries methods."""

    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config, "vocab_size")
        self.positions = Embedding(config, "seq_len") if config.positions == "learned" else None
        self.blocks = nn.ModuleList(self.block(config) for _ in range(config.n_layer))
        self.norm_head = self.norm(config, feeds_tied_head=config.tied)
        self.head = None if config.tied else Linear(config, ("vocab_size",), ("d_model",))
        rotations = rotation(config) if config.positions == "rotary" else None
        self.register_buffer("rotation", rotations, persistent=False)
        if generator is not None:
            self.init_weights(generator)

    def init_weights(
        self, generator: torch.Generator, needed: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Draw the initial weights of every part, or of those with a tensor that is `needed`."""
        for path, part in self.parts():
            if any(needed(f"{path}.{name}") for name in part.axes):
                part.init_weights(generator, self.config.n_layer)

    def linear(self, config: ModelConfig, out: tuple[str, ...], into: tuple[str, ...]) -> Part:
        """Make a linear map of a block; subclasses return another parametrisation of it."""
        return Linear(config, out, into)

    def norm(self, config: ModelConfig, *, feeds_tied_head: bool = False) -> Part:
        """Make a norm."""
        return Norm(config, feeds_tied_head=feeds_tied_head)

    def block(self, config: ModelConfig) -> nn.Module:
        """Make a block."""
        return Block(self, config)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Every leaf with its name."""
        return ((name, part) for name, part in self.named_modules() if isinstance(part, Part))

    def axes(self) -> dict[str, Axes]:
        """Axes of every tensor of `state_dict`, under the same keys."""
        return {f"{path}.{name}": a for path, part in self.parts() for name, a in part.axes.items()}

    def running(self) -> Iterator[nn.Module]:
        """Blocks of the coming pass, in order."""
        return iter(self.blocks)

    @property
    def n_running(self) -> int:
        """Blocks that a training step runs, for its cost: `running` of a subclass may be fewer."""
        return self.config.n_layer

    @property
    def linear_macs(self) -> int:
        """Multiply-accumulates per token of all linear maps; the head counts also when tied."""
        tied = self.embed.weight.numel() if self.head is None else 0
        block = sum(part.macs for part in self.blocks[0].modules() if isinstance(part, Part))
        idle = (self.config.n_layer - self.n_running) * block
        return tied + sum(part.macs for _, part in self.parts()) - idle

    @property
    def attention_macs(self) -> int:
        """Multiply-accumulates per token and attended key: scores and weighted values."""
        config = self.config
        return 2 * self.n_running * config.n_head * config.n_query * config.d_head

    @classmethod
    @cache
    def shell(cls, config: ModelConfig) -> Self:
        """A model without memory (meta device), for its axes, shapes and cost; do not modify."""
        with torch.device("meta"):
            return cls(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    def features(self, ids_BT: Tensor) -> Tensor:
        """What the head reads, (B, T, D)."""
        x_BTD: Tensor = self.embed(ids_BT)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions.weight[: ids_BT.shape[1]]
        rotation_Tk2 = self.rotation
        if rotation_Tk2 is not None:  # once for all blocks
            rotation_Tk2 = rotation_Tk2.to(torch.promote_types(x_BTD.dtype, torch.float32))
        for block in self.running():
            x_BTD = block(x_BTD, rotation_Tk2)
        return self.norm_head(x_BTD)

    @override
    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.features(ids_BT)
        if self.head is None:
            return linear(x_BTD, self.embed.weight)
        return self.head(x_BTD)

    @property
    def large_head(self) -> Tensor | None:
        """Weight (V, D) of a head whose logits are better not made all at once, `LARGE` or more.

        None also where a subclass makes its logits in a way of its own.
        """
        is_plain = type(self).forward is Transformer.forward and type(self.head) in _PLAIN_HEADS
        if self.config.vocab_size < LARGE or not is_plain:
            return None
        return self.embed.weight if self.head is None else self.head.get_parameter("weight")


_PLAIN_HEADS = (Linear, type(None))
