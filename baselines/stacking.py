"""Stacking: new blocks are copies of trained ones, and the order of the copies is the method.

- whole: G_stack (Du et al. 2024, arXiv:2405.15319; code tongxuluo/prts, commit bf6f774) and, in
  stages that double, StackBERT (Gong et al. 2019).
- interleaved: interpolation in Du et al. 2024.
- last: copies of the top block.
- gradual: copies of as many top blocks as are new, stage by stage (Reddi et al. 2023).
- middle: MIDAS (Saunshi et al. 2024, arXiv:2409.19044), copies of a group in the middle, in place.
- central: LIDAS (Kapl et al. 2025, arXiv:2512.08819), MIDAS by layers: of two groups in the middle
  the last half of one and the first half of the other. Of the paper its opening was read.

None keeps the function; from one block to two all are the same.

After growth: G_stack is published with a fresh optimizer and a schedule that starts again with a
warm-up; so here, for every order. What the others' authors do with Adam's moments is not known to
us. `stacking_asymmetric` keeps the moments of old blocks instead, at an unchanged rate.

Deviations: the restarted schedule decays with everyone's, at everyone's peak, where G_stack's base
has about three times its target's. Grown fourfold, a target of four blocks has a base of one;
theirs have six or more, and from a single block they found it worse than scratch (`stacking_half`
has two). A depth that copies do not divide is filled as block_orders.py says.
"""

from baselines.parts.block_orders import RepeatBlocks
from benchmark.baseline import Baseline
from benchmark.growth import StatePolicy
from benchmark.training.optim import Rewarm


class Stacking(Baseline):
    """Grow n_layer by copying blocks."""

    state_policy = StatePolicy.RESET
    rewarm = Rewarm(which="all")

    def __init__(self, order: str = "whole") -> None:
        super().__init__()
        self.operators = (RepeatBlocks(order),)
