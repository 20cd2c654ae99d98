"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), for the maps inside blocks.

Momentum is averaged as Adam averages gradients, then a Newton-Schulz iteration brings all its
singular values near one. Tables, the head and gains are left to AdamW. As proposed by Liu et al.
(2025, arXiv:2502.16982) an update has the root mean square of AdamW's, 0.2, so that both parts, and
suites with either optimizer, take the same rates and decay.

`torch.optim.Muon` has one group of 2-D parameters, takes query, key and value for one map, and
calls 15 small products for every matrix; here maps that lie stacked count one by one, and maps of
one shape are multiplied together. The iteration is in bfloat16 on a GPU, as theirs, and in the
weights' precision on a CPU. Its products are part of a step's charge.

Shape suffixes: N maps, R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from benchmark.growth.operator import ADAM
from benchmark.training.optim import Optimizer, fused_adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic polynomial that is iterated: steepest at zero, and then between 0.7 and 1.2."""

RMS = 0.2


class Muon(Optimizer):
    """Muon for the maps inside blocks, AdamW for all else.

    Its state is Adam's, of which maps use the first moment only; so growth treats it as Adam's.

    Args:
        groups: of parameters, see `Optimizer`.
        lr: of all groups until they are told theirs.
        momentum: share of the old average in the new one.
        nesterov: whether the update looks one gradient ahead.
        n_iterations: of the orthogonalisation.
        beta1: of AdamW, like the next two.
        beta2: of AdamW.
        eps: of AdamW.
    """

    gradient_powers = ADAM

    def __init__(  # noqa: PLR0913 - as many as there are constants
        self,
        groups: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        n_iterations: int = 5,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "n_maps": 0, "betas": (beta1, beta2), "eps": eps}
        super().__init__(groups, defaults)
        self.momentum, self.nesterov, self.n_iterations = momentum, nesterov, n_iterations

    @torch.no_grad()
    @override
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        alike = defaultdict[torch.Size, list[tuple[Tensor, Tensor, float]]](list)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not group["n_maps"]:
                fused_adamw(group, parameters, self.state)
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for parameter, update in zip(parameters, self._averaged(parameters), strict=True):
                stacked = (group["n_maps"], -1, parameter.shape[-1])
                maps, updates = parameter.view(stacked), update.view(stacked)
                if maps.shape[1] > maps.shape[2]:
                    maps, updates = maps.mT, updates.mT
                alike[maps.shape[1:]].append((maps, updates, group["lr"]))
        for shape, entries in alike.items():
            directions = orthogonal(torch.cat([each for _, each, _ in entries]), self.n_iterations)
            parts = directions.split([len(maps) for maps, *_ in entries])
            for (maps, _, rate), part in zip(entries, parts, strict=True):
                maps.add_(part, alpha=-rate * RMS * max(shape) ** 0.5)

    @override
    def step_flops(self) -> float:
        return self.n_iterations * sum(
            _iteration_flops(group["n_maps"], parameter)
            for group in self.param_groups
            if group["n_maps"]
            for parameter in group["params"]
        )

    def _averaged(self, parameters: list[Tensor]) -> list[Tensor]:
        """Momentum of these parameters, which takes in their gradients."""
        states = [self.state[parameter] for parameter in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        averages = [state["exp_avg"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._foreach_lerp_(averages, gradients, 1 - self.momentum)
        if not self.nesterov:
            return averages
        return list(torch._foreach_lerp(gradients, averages, self.momentum))


def _iteration_flops(n_maps: int, stacked: Tensor) -> float:
    """FLOPs of one iteration for the maps in a matrix, two per multiply-accumulate.

    Returns:
        Of R rows and C >= R columns each: R^2 C for the Gram matrix, R^3 for its square, R^2 C for
        the product of their sum with the matrix.
    """
    n_columns = stacked.shape[-1]
    r, c = sorted((stacked.numel() // n_maps // n_columns, n_columns))
    return 2.0 * n_maps * (2 * r**2 * c + r**3)


def orthogonal(updates_NRC: Tensor, n_iterations: int) -> Tensor:
    """The nearest matrices whose singular values are about one; those of zero stay.

    Args:
        updates_NRC: no higher than wide; left as they are.
        n_iterations: five are enough for bfloat16.

    Returns:
        (N, R, C), in the precision of the updates.
    """
    a, b, c = COEFFICIENTS
    x = updates_NRC.bfloat16() if updates_NRC.is_cuda else updates_NRC
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_(min=1e-7)
    for _ in range(n_iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(updates_NRC.dtype)
