"""Scratch is as good as it was: nobody wins against a crippled control.

`configs/bands/<suite>.yaml` holds what scratch reached on the validation split when it was last
checked: mean, standard deviation and number of seeds, and the plan they belong to. MLPerf holds
submissions to such reference points lest they converge too well; here a control must not do worse.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import yaml
from scipy import stats

from benchmark.audit.evidence import Evidence, Remark

BANDS = Path(__file__).resolve().parent.parent.parent / "configs" / "bands"
ALPHA = 0.05
"""Of the one-sided test."""


def reference(evidence: Evidence) -> Iterator[Remark]:
    """Scratch is not worse on validation than the reference (one-sided t test, 5 %)."""
    yield from compared(evidence, BANDS)


def compared(evidence: Evidence, bands: Path) -> Iterator[Remark]:
    """The same against the bands in a folder."""
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
    found = [
        math.fsum(final["block_nats"]) / sum(final["block_bytes"]) / math.log(2)
        for run in evidence.done
        if run.method == "scratch"
        for final in run.of("final")
        if final["split"] == "val"
    ]
    if not found:
        yield Remark("suite.yaml: no scratch run is done")
        return
    spread = stdev(found) if len(found) > 1 else 0.0
    test = stats.ttest_ind_from_stats(
        fmean(found), spread, len(found), band["mean"], band["sd"], band["n"], alternative="greater"
    )
    if test.pvalue < ALPHA:
        yield Remark(
            f"suite.yaml: scratch reaches {fmean(found):.4f} bpb on validation over {len(found)} "
            f"seeds, {name} says {band['mean']:.4f} (sd {band['sd']:.4f}, {band['n']} seeds): "
            f"a crippled control, p = {test.pvalue:.2g}"
        )
