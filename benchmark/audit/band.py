"""Scratch is as good as it was: nobody wins against a crippled control.

`configs/bands/<suite>.yaml` holds what scratch reached on the validation split, by seed, when it
was last trained for this. MLPerf holds submissions to such reference points lest they converge too
well; here a control must not do worse. A seed that is listed is compared with itself, where only
rounding differs from machine to machine; other seeds with all that are listed, which is coarser.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from scipy import stats

from benchmark.audit.evidence import Evidence, Remark
from benchmark.base.paths import CONFIGS

ALPHA = 0.05
"""Of each one-sided test."""


def reference(evidence: Evidence, bands: Path = CONFIGS / "bands") -> Iterator[Remark]:
    """Scratch is not worse on validation than the reference, seed by seed (one-sided, 5 %)."""
    path = bands / f"{evidence.suite.name}.yaml"
    name = f"configs/bands/{path.name}"
    if not path.is_file():
        yield Remark(f"{name}: there is none, so scratch is not checked", is_fault=False)
        return
    band = yaml.safe_load(path.read_text())
    shared = evidence.shared
    here = {"version": str(shared["suite_version"]), "corpus": evidence.ran[0].events[0]["corpus"],
            "budget_flops": shared["protocol"]["budget_flops"]}  # fmt: skip
    other = [key for key, value in here.items() if band[key] != value]
    if other:
        words = ", ".join(f"{key} {band[key]}, here {here[key]}" for key in other)
        yield Remark(f"{name}: is for {words}; scratch is not checked", is_fault=False)
        return
    found = _scores(evidence)
    if not found:
        yield Remark("suite.yaml: no scratch run is done")
    known = found.keys() & band["seeds"].keys() if "rounding" in band else set()
    for seeds, test in ((known, _same_seeds), (found.keys() - known, _other_seeds)):
        if seeds and (p := test({seed: found[seed] for seed in seeds}, band)) < ALPHA:
            worse = fmean(found[seed] for seed in seeds)
            those = seeds if test is _same_seeds else band["seeds"]
            expected = fmean(band["seeds"][seed] for seed in those)
            yield Remark(
                f"suite.yaml: scratch reaches {worse:.4f} bpb on validation with seeds "
                f"{', '.join(map(str, sorted(seeds)))}, {name} says {expected:.4f}: a crippled "
                f"control, p = {p:.2g}"
            )


def _scores(evidence: Evidence) -> dict[int, float]:
    """Validation bpb of scratch by seed."""
    return {
        run.seed: final["bpb"]
        for run in evidence.done
        if run.method == "scratch"
        for final in run.of("final")
        if final["split"] == "val"
    }


def _same_seeds(found: Mapping[int, float], band: Mapping[str, Any]) -> float:
    """The p-value of the mean difference to the same seeds, against what rounding makes."""
    mean = fmean(bpb - band["seeds"][seed] for seed, bpb in found.items())
    error = band["rounding"]["sd"] / math.sqrt(len(found))
    return float(stats.t.sf(mean / error, band["rounding"]["n"]))


def _other_seeds(found: Mapping[int, float], band: Mapping[str, Any]) -> float:
    """The p-value of a t test against the seeds of the band that are not among those found."""
    listed = [bpb for seed, bpb in band["seeds"].items() if seed not in found]
    spread = stdev(found.values()) if len(found) > 1 else 0.0
    test = stats.ttest_ind_from_stats(
        fmean(found.values()), spread, len(found),
        fmean(listed), stdev(listed), len(listed), alternative="greater",
    )  # fmt: skip
    return float(test.pvalue)
