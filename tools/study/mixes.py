"""What matters when several sizes grow: which, in what order, by what path, in how many growths."""

import pandas as pd

from benchmark.report.factors import design, main_effects, shares
from benchmark.report.frames import Frames, Row


def mixes(frames: Frames) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Main effects of the choices, and the share of the variance within seeds that each explains.

    Least squares with the seed as a block. Methods that are no mix are left out, and so are choices
    that all have in common.
    """
    levels = {name: _levels(frames.settings[name]["ladder"]) for name in frames.methods("method")
              if frames.settings.get(name, {}).get("ladder", {}).get("n_growths")}  # fmt: skip
    found = design(frames, levels)
    return main_effects(found), shares(found)


def _levels(ladder: Row) -> Row:
    """The choices that a ladder is made of, in words."""
    shrunk = list(ladder.get("shrink") or {})
    groups = ladder.get("groups") or []
    is_split = ladder.get("order", "together") != "together"
    return {
        "sizes": "widths and depth" if "n_layer" in shrunk else ", ".join(shrunk),
        "growths": "3 or 4" if ladder["n_growths"] > 2 else str(ladder["n_growths"]),  # noqa: PLR2004
        "order": str(ladder.get("order", "together")),
        "path": str(ladder.get("path", "linear")).rpartition(":")[2],
        "first": "depth" if is_split and groups and groups[0] == ["n_layer"] else "widths",
    }
