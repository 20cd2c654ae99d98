"""The report as one HTML file that needs no network: the text of report.md, and ways into it.

`page` puts it together from `markup` (text and tables), `verdict_table` (sort and filter), `curves`
(the chart) and `run_cards` (what is known of each run). The files in `assets` are inlined.
"""
