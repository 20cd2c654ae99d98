"""Depth growth by new random blocks that start as identities.

Both residual writes of a new block are zero, so the block adds nothing, and every weight learns:
the writes at once, the others as soon as the writes have moved. The layer addition of Gesmundo &
Maile 2023 (arXiv:2308.06103), theorem 3.6; Shen et al. 2022 (arXiv:2203.06211) zero the norms
instead, which without biases leaves a SwiGLU block dead for ever. No official code is known.

After growth: the paper says nothing of the optimizer. Here old blocks keep their moments, new ones
start from zero, and the rate stays.

Deviations: none.
"""

from baselines.parts.identity_blocks import IdentityBlocks
from benchmark.baseline import Baseline


class IdentityDepth(Baseline):
    """Grow n_layer by random blocks that start as identities."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = (IdentityBlocks(),)
