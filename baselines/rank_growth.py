"""Growth from low rank to dense: every linear map starts as U V, gains rank, and ends as a matrix.

No published method is exactly this. Nearest are InRank (Zhao et al. 2023, arXiv:2306.11250; code
jiaweizzhao/InRank), which raises the rank of the updates of MLPs to a third of full, and ReLoRA
(Lialin et al. 2023, arXiv:2307.05695), which merges factors into a matrix that was always there.
No official code.

New columns of U are zero, new rows of V are orthonormal to the old ones and as long as their
median: the product stays, and one step makes it one of rank r + k. Where the product is no dearer
than its factors it takes their place.

After growth: old entries keep their moments, new ones start from zero, and so does a matrix in the
place of its factors: Adam's second moment of a product does not follow from theirs. The rate stays.

Deviations from what is known to suit factors: each decays at the full rate, so that their product
decays twice as fast as a matrix; the learning rate does not depend on the rank.
"""

from baselines.parts.low_rank import LowRankTransformer
from baselines.parts.low_rank_growth import AddRank
from benchmark.baseline import Baseline


class RankGrowth(Baseline):
    """Grow the rank of every linear map of a block, to dense."""

    model_class = LowRankTransformer

    def __init__(self) -> None:
        super().__init__()
        self.operators = (AddRank(),)
