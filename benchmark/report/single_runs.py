"""Runs too few for an interval, held against the band of scratch.

With one or two seeds a method has no standard deviation of its own. Where `configs/bands` tells
what many seeds of scratch reach on the same workload, a run may be judged as records in speed-runs
are, with that spread taken as known: does its validation bpb lie outside of what one more run of
scratch would reach (two-sided, 95 %)? That assumes that the method varies over seeds as scratch
does. It is a first look and never a verdict.
"""

import math
from pathlib import Path

import pandas as pd
import yaml

from benchmark.base.paths import CONFIGS
from benchmark.report.frames import Frames, Row
from benchmark.report.statistics import MIN_SEEDS, deviation, t_limit

BANDS = CONFIGS / "bands"

_COLUMNS = ["method", "role", "n", "val_bpb", "band_seeds", "band_bpb", "difference", "low", "high",
            "word"]  # fmt: skip


def single_runs(frames: Frames, bands: Path = BANDS) -> pd.DataFrame:
    """Every method and control with too few results for a verdict; empty without a band.

    Args:
        frames: the records.
        bands: folder of `SUITE.yaml`, each the validation bpb of scratch by seed.
    """
    band = _band(frames, bands)
    few = [
        (method, list(frames.results(method).val_bpb))
        for method in frames.methods("method", "control", "hull")
        if 0 < len(frames.results(method)) < MIN_SEEDS
    ]
    found = [{"method": m, "role": frames.of(m).role.iloc[0]} | held(bpb, band) for m, bpb in few]
    return pd.DataFrame(found if len(band) >= MIN_SEEDS else [], columns=_COLUMNS)


def held(bpb: list[float], band: list[float]) -> Row:
    """The mean of a few runs minus that of a band, with the limits of a prediction interval.

    The spread is the band's alone, so its seeds give the degrees of freedom.
    """
    n, k = len(bpb), len(band)
    centre = math.fsum(band) / k if k else math.nan
    difference = sum(bpb) / n - centre
    half = t_limit(k - 1) * deviation(band) * math.sqrt(1 / n + 1 / k) if k > 1 else math.nan
    low, high = difference - half, difference + half
    word = "better than scratch's band" if high < 0 else "within scratch's band"
    return {
        "n": n,
        "val_bpb": sum(bpb) / n,
        "band_seeds": k,
        "band_bpb": centre,
        "difference": difference,
        "low": low,
        "high": high,
        "word": "worse than scratch's band" if low > 0 else word,
    }


def _band(frames: Frames, bands: Path) -> list[float]:
    """Validation bpb of scratch over seeds, if there is a band for this very workload."""
    path = bands / f"{frames.suite.name}.yaml"
    band = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    here = {"version": frames.suite.version, "corpus": frames.runs.corpus.dropna().iloc[0],
            "budget_flops": frames.budget_flops}  # fmt: skip
    is_same = all(band.get(key) == value for key, value in here.items())
    return list(band["seeds"].values()) if is_same else []
