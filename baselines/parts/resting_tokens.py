"""A TokenFormer whose old tokens are parameters of their own, so that they can rest.

The sums are those of `TokenFormer`: the scores of old and of new tokens share one norm.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from baselines.parts.token_parameters import Pattention, TokenFormer
from benchmark.base.errors import ConfigError, GrowthError
from benchmark.growth import GrowthOperator, Resources, Transfer, Weights
from benchmark.model import Axes, FixedAxis, ModelConfig, Part, Transformer
from benchmark.model.kernels import grouped_linear, linear


class SplitPattention(Pattention):
    """Attention to the `n_rest` old tokens, `read` and `write`, and to new ones.

    The new ones are `read_new` and `write_new`.
    """

    def __init__(
        self, config: ModelConfig, ends: Axes, tokens: tuple[str, ...], make: TokenFormer
    ) -> None:
        n_new = config.size("n_token") - config.size("n_rest")
        if n_new < 1:
            raise ConfigError(
                f"model size n_rest must be at most n_token={config.size('n_token')}, "
                f"got {config.size('n_rest')}"
            )
        old, new = (
            tuple(axis if name == "n_token" else name for name in tokens)
            for axis in ("n_rest", FixedAxis("n_new", n_new, n_maps=1))
        )
        super().__init__(config, ends, old, make)
        added = Pattention(config, ends, new, make)
        for name in ("read", "write"):
            self.axes[f"{name}_new"] = added.axes[name]
            self.register_parameter(f"{name}_new", added.get_parameter(name))
        self.tau2 += added.tau2

    read_new: Tensor
    write_new: Tensor

    @property
    @override
    def macs(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        super().init_weights(generator, n_layer)
        n_token = self.write.shape[1] + self.write_new.shape[1]
        for weight, fan_in in ((self.read_new, self.read.shape[1]), (self.write_new, n_token)):
            nn.init.normal_(weight, std=fan_in**-0.5, generator=generator)

    @override
    def forward(self, x: Tensor) -> Tensor:
        keys = (self.read, self.read_new)
        scores = [linear(x, key).unflatten(-1, (self.n_group, -1)) for key in keys]
        hidden = self.between(torch.cat(scores, dim=-1))
        values = (self.write, self.write_new)
        parts = hidden.split([score.shape[-1] for score in scores], dim=-1)
        old, new = (grouped_linear(h.contiguous(), v) for h, v in zip(parts, values, strict=True))
        return old + new


class RestingTokenFormer(TokenFormer):
    """TokenFormer with the first `n_rest` of its tokens apart."""

    own_sizes = {"n_token": 6, "n_rest": 6}  # noqa: RUF012 - a mapping that nobody changes

    @override
    def attention(self, config: ModelConfig, ends: Axes, tokens: tuple[str, ...]) -> Part:
        are_all_old = config.size("n_rest") == config.size("n_token")
        return (Pattention if are_all_old else SplitPattention)(config, ends, tokens, self)


@dataclass(frozen=True)
class TokensApart(GrowthOperator):
    """Random tokens beside all the old ones, which become the first `n_rest` of the large model."""

    grows = frozenset({"n_token"})

    @override
    def prepare(self, small: Transformer, target: ModelConfig, resources: Resources) -> Transfer:
        if small.config.size("n_token") != target.size("n_rest"):
            raise GrowthError(
                f"all {small.config.size('n_token')} tokens are to rest, but n_rest is "
                f"{target.size('n_rest')}"
            )
        return _Apart(RestingTokenFormer.shell(target))


@dataclass(frozen=True)
class _Apart(Transfer):
    shell: Transformer

    @override
    def weights(self, small: Weights, fresh: Weights) -> Weights:
        return {name: small.get(name, fresh.get(name)) for name in self.shell.state_dict()}  # type: ignore[misc]

    @override
    def moments(self, small: Weights, power: int) -> Weights:
        return {
            name: small[name] if name in small else torch.zeros(like.shape, device=_device(small))
            for name, like in self.shell.named_parameters()
        }

    @override
    def is_new(self) -> Weights:
        return {
            name: torch.full(like.shape, self.needs_fresh(name), device="cpu")
            for name, like in self.shell.named_parameters()
        }

    @override
    def needs_fresh(self, name: str) -> bool:
        return name.endswith("_new")


def _device(weights: Weights) -> torch.device:
    return next(iter(weights.values())).device
