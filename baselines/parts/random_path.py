"""A transformer of which a training step runs some blocks: the first, the last, drawn ones between.

How many is a size, `n_path`, so that it has a known cost and may grow. Held-out text is scored by
all blocks.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmark.base.errors import ConfigError
from benchmark.model import Axes, FreePart, Kind, ModelConfig, Transformer


class Draws(FreePart):
    """The number that the next path follows from; part of the model's state."""

    next: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.axes = {"next": Axes(kind=Kind.CONSTANT)}
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    @override
    def init_weights(self, generator: torch.Generator | None, n_layer: int) -> None:
        self.next.random_(2**40, generator=generator)

    def path(self, n_path: int, n_layer: int) -> list[int]:
        """Numbers of the blocks of the coming step; a path of one is the first."""
        source = torch.Generator().manual_seed(int(self.next))
        self.next += 1
        between = (
            torch.randperm(n_layer - 2, generator=source, device="cpu")[: max(0, n_path - 2)] + 1
        )
        return [0, *sorted(between.tolist()), n_layer - 1][: max(1, n_path)]


class RandomPathTransformer(Transformer):
    """A transformer of which a training step runs `n_path` blocks."""

    own_sizes: ClassVar[Mapping[str, int]] = {"n_path": 1}

    def __init__(self, config: ModelConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        if config.n_path > config.n_layer:
            raise ConfigError(f"n_path must be at most n_layer={config.n_layer}")
        self.draws = Draws()
        if generator is not None:
            self.init_weights(generator)

    @override
    def running(self) -> Iterator[nn.Module]:
        n_path, n_layer = self.config.n_path, self.config.n_layer
        if not self.training or n_path == n_layer:
            return super().running()
        return (self.blocks[i] for i in self.draws.path(n_path, n_layer))

    @property
    @override
    def n_running(self) -> int:
        return self.config.n_path
