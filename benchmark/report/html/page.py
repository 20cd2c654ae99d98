"""Puts the page together: one file, no requests, the same bytes from the same records."""

import base64
import re
from collections.abc import Iterator, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from benchmark.report.analysis import Analysis
from benchmark.report.controls import SCRATCH
from benchmark.report.drawing import Drawing
from benchmark.report.frames import Row
from benchmark.report.html.curves import curves
from benchmark.report.html.markup import block, inline
from benchmark.report.html.run_cards import run_cards
from benchmark.report.html.verdict_table import OWN, verdict_table
from benchmark.report.prose import answer
from benchmark.report.sections import SECTIONS
from benchmark.report.warnings import tripwires

INTERACTIVE = "curves_flops"
"""The figure that the chart of the page replaces."""

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_FIGURE = re.compile(r"^!\[([^]]*)\]\(figures/(\w+)\.png\)$", re.MULTILINE)
_IMAGE = Markup('<figure><img src="data:image/png;base64,{}" alt="{}"></figure>')


def page(drawing: Drawing, markdown: str, figures: Mapping[str, bytes]) -> str:
    """The text of `report.html`.

    Args:
        drawing: the curves, and the analysis that report.md is made from.
        markdown: the text of report.md, whose sections follow the verdicts and the chart.
        figures: bytes by file name; they are inlined.
    """
    analysis = drawing.analysis
    environment = Environment(
        loader=PackageLoader("benchmark.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("page.html").render(
        plotly=Markup(get_plotlyjs()),
        data=curves(drawing) | run_cards(analysis),
        suite=analysis.frames.suite,
        answer=inline(answer(analysis)),
        warnings=[inline(text) for text in tripwires(analysis)],
        verdicts=verdict_table(analysis),
        own=OWN,
        has_scratch=SCRATCH in drawing.curves,
        sections=list(_sections(analysis, markdown, figures)),
    ) + "\n"  # fmt: skip


def _sections(analysis: Analysis, markdown: str, figures: Mapping[str, bytes]) -> Iterator[Row]:
    """The parts of the page that fold."""
    run_ids = [run.run_id for run in analysis.frames.suite.runs]
    _, *parts = _HEADING.split(markdown)
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = _FIGURE.split(text)
        shown = [block(words, title, run_ids) for words in blocks[::3]]
        for i, (caption, name) in enumerate(zip(blocks[1::3], blocks[2::3], strict=True)):
            if name != INTERACTIVE:
                content = base64.b64encode(figures[f"{name}.png"]).decode()
                shown[i] += _IMAGE.format(content, caption)
        yield {
            "title": title,
            "anchor": "section-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"),
            "html": Markup().join(shown),
            "is_open": title in SECTIONS,
        }
