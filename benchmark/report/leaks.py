"""What would make a score too good to be true: seen text, and limits that nothing can beat."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.base.errors import RecordError
from benchmark.records.folder import Suite

FILE = "corpus.json"
PLAUSIBLE_BPB = 0.93
"""About the best published on enwik8; below it on real text, suspect that the text was seen."""

ERRORS_BELOW = 4.0
"""Standard errors, over blocks of text, that a sample may lie below its source's entropy rate."""

Overlap = Mapping[str, Any]


def overlap(results_dir: Path) -> Overlap:
    """What validation and test text share with training text; empty if nobody looked.

    Raises:
        RecordError: the file is damaged.
    """
    path = results_dir / FILE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: not JSON: {error}") from error


def shares(found: Overlap) -> dict[str, float]:
    """Of each held-out split that was looked at, what share stands in the training text."""
    return {split: found[split]["share_in_train"] for split in ("val", "test") if split in found}


def require_possible(suite: Suite, found: Overlap) -> None:
    """Refuse scores below the entropy rate of a synthetic source, which no model can reach.

    Raises:
        RecordError: a run is further below it than the sample of text explains.
    """
    rate = float(found.get("entropy_rate_bits") or 0.0)
    for run in suite.runs if rate else ():
        for event in run.of("final"):
            bpb, error = event["bpb"], _error(event)
            if math.isfinite(bpb) and bpb < rate - ERRORS_BELOW * error:
                raise RecordError(
                    f"run {run.run_id} ({run.method}, seed {run.seed}): {bpb:.4f} bpb on "
                    f"{event['split']} is below the entropy rate of its source, {rate:.4f}: no "
                    "model can do that on text it has not seen"
                )


def _error(event: Mapping[str, Any]) -> float:
    """Standard error of a bpb over blocks; 0 from a single block."""
    nats, sizes = (np.asarray(event[key], float) for key in ("block_nats", "block_bytes"))
    if len(nats) < 2:  # noqa: PLR2004
        return 0.0
    bits = nats / sizes / math.log(2)
    return float(bits.std(ddof=1)) / math.sqrt(len(bits))
