"""A reproducible benchmark harness for methods that grow language models during training."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.report.results import Results

__all__ = ["load_results"]


def load_results(folder: "str | Path") -> "Results":
    """The records in a folder such as results/cpu as tidy pandas frames; see docs/results.md.

    Raises:
        RecordError: there are no records, or they are damaged or contradict one another.
    """
    from benchmark.report import results  # noqa: PLC0415 - `import benchmark` needs no pandas

    return results.load_results(folder)
