"""The report as one HTML file that needs no network: the text of report.md, and ways into it.

`page` puts it together from `markup` (text and tables), `verdict_table` (sort and filter),
`curves` (the chart), `run_cards` (what is known of each run) and `library` (plotly.js). The files
in `assets` are inlined.
"""

from benchmark.report.html.library import unpacked
from benchmark.report.html.page import page

__all__ = ["page", "unpacked"]
