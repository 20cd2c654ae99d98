"""From records to a page: a pure function, without torch, that never trains.

`frames` makes records tidy, `verdicts` compares, `tables` counts, `analysis` gathers; `formats`,
`prose`, `markdown` and `figures` show; `files` writes and checks.
"""

from benchmark.report.files import check, render, write

__all__ = ["check", "render", "write"]
