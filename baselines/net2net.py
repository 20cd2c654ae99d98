"""Net2Net (Chen et al. 2016, arXiv:1511.05641), done right on a pre-norm transformer.

Net2Wider: new feed-forward units and whole heads repeat randomly drawn old ones, d_model is tiled,
and every reader divides by the number of copies. Net2Deeper: inserting an identity map does not
exist for GELU, so new blocks are random ones with residual writes of zero. No official code is
known.

After growth: published with SGD at a tenth of the rate, where Adam has no counterpart to keep. Here
old entries keep their moments, new ones start from zero, and the rate stays.

Deviations: d_model is tiled, not drawn, because a norm's statistics weigh each feature by its
count; the noise that separates copies is centred over them, so that growth stays exact, where the
reference code (Keras mnist_net2net) perturbs the new weights only; the rate.
"""

from baselines.parts.copies import DrawnCopies
from baselines.parts.identity_blocks import IdentityBlocks
from benchmark.baseline import Baseline


class Net2Net(Baseline):
    """Grow every size, keeping the function."""

    def __init__(self, noise: float = 0.05) -> None:
        super().__init__()
        self.operators = (DrawnCopies(noise), IdentityBlocks())
