"""Puts the page together: one file, no requests, the same bytes from the same records."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.report import formats, sections
from benchmark.report.analysis import Analysis
from benchmark.report.controls import SCRATCH
from benchmark.report.drawing import COLOURS, Drawing
from benchmark.report.frames import Row
from benchmark.report.html.curves import curves
from benchmark.report.html.markup import block, inline
from benchmark.report.html.run_cards import run_cards
from benchmark.report.html.verdict_table import OWN, verdict_table
from benchmark.report.prose import answer
from benchmark.report.warnings import tripwires

SCRIPTS = ("format.js", "library.js", "table.js", "drawer.js", "chart.js")
INTERACTIVE = ("curves_flops",)
"""Figures that the chart of the page replaces."""

_PACKED = re.compile(rb'(<script type="text/plain" id="library">)([^<]+)')
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_FIGURE = re.compile(r"^!\[([^]]*)\]\(figures/(\w+)\.png\)$", re.MULTILINE)


def page(drawing: Drawing, markdown: str, figures: Mapping[str, bytes]) -> str:
    """The text of `report.html`.

    Args:
        drawing: the curves, and the analysis that report.md is made from.
        markdown: the text of report.md, whose sections follow the verdicts and the chart.
        figures: bytes by file name; they are inlined.
    """
    analysis, theme, plotly = drawing.analysis, _asset("theme.js"), library()
    app = "\n".join(map(_asset, SCRIPTS))
    environment = Environment(
        loader=PackageLoader("benchmark.report.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        policy=_policy(theme, plotly, app),
        style=Markup(_asset("page.css")),
        theme=Markup(theme),
        library=packed(plotly),
        app=Markup(app),
        data=_json(curves(drawing) | run_cards(analysis)),
        suite=analysis.frames.suite,
        answer=inline(answer(analysis)),
        warnings=[inline(text) for text in tripwires(analysis)],
        verdicts=verdict_table(analysis),
        own=OWN,
        has_scratch=SCRATCH in drawing.curves,
        shown_first=_shown_first(drawing),
        sections=list(_sections(analysis, markdown, figures)),
    ) + "\n"  # fmt: skip


def library() -> str:
    """plotly.js, from the wheel of the pinned plotly."""
    return files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def packed(text: str) -> str:
    """The text as zlib's format in base64, which the script `library.js` reads."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(page: bytes) -> bytes:
    """The page with its library as text: what to compare, for builds of zlib pack differently.

    Raises:
        ValueError: what the page carries cannot be unpacked.
    """
    try:
        return _PACKED.sub(lambda m: m[1] + zlib.decompress(base64.b64decode(m[2])), page)
    except zlib.error as error:
        raise ValueError(f"the library of the page is damaged: {error}") from error


def _sections(analysis: Analysis, markdown: str, figures: Mapping[str, bytes]) -> Iterator[Row]:
    """The parts of the page that fold."""
    run_ids = [run.run_id for run in analysis.frames.suite.runs]
    _, *parts = _HEADING.split(markdown)
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = _FIGURE.split(text)
        shown = [block(words, title, run_ids) for words in blocks[::3]]
        for i, (caption, name) in enumerate(zip(blocks[1::3], blocks[2::3], strict=True)):
            shown[i] += _image(caption, name, figures)
        yield {
            "title": title,
            "anchor": "section-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"),
            "html": Markup().join(shown),
            "is_open": title in sections.SECTIONS,
        }


def _shown_first(drawing: Drawing) -> str:
    """What the chart shows before a reader chooses, in words."""
    best, names = drawing.analysis.controls.best_fixed, drawing.prominent
    n_methods = len(set(names) & set(drawing.ranked))
    few = f"the {len(COLOURS)} methods with the lowest test bpb"
    parts = {
        "scratch in a heavy line": SCRATCH in names,
        "the best fixed size in a dashed one": best != SCRATCH and best in names,
        few if n_methods < len(drawing.ranked) else "every method": n_methods > 0,
    }
    return formats.listed([part for part, is_shown in parts.items() if is_shown]) or "nothing"


def _image(caption: str, name: str, figures: Mapping[str, bytes]) -> Markup:
    if name in INTERACTIVE:
        return Markup()
    content = base64.b64encode(figures[f"{name}.png"]).decode()
    image = Markup('<figure><img src="data:image/png;base64,{}" alt="{}"></figure>')
    return image.format(content, caption)


def _policy(*scripts: str) -> str:
    """A content security policy under which only these scripts run and nothing is fetched."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json(data: Row) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    escapes = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"}
    return Markup(re.sub("[<>&]", lambda found: escapes[found[0]], text))


def _asset(name: str) -> str:
    return files("benchmark.report.html").joinpath("assets", name).read_text(encoding="utf-8")
