"""The report's markdown as HTML in which nothing of a record can become markup.

Only what the report itself writes is understood: emphasis, code, lists, quotes and tables. HTML,
links and images are not, so a method named `<script>` is shown by that name.
"""

import re
from collections.abc import Iterable

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False})
    .enable("table")
    .disable(["autolink", "entity", "html_block", "html_inline", "image", "link", "reference"])
)
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_CELL = re.compile(r">([^<>]*)(</t[dh]>)")
_GROUP = re.compile(r"<tr>\n<td[^>]*><strong>(.*?)</strong></td>\n((?:<td[^>]*></td>\n)+)</tr>")
_FIRST_CELL = re.compile(r"<tr>\n<td([^>]*)>(.*?)</td>", re.DOTALL)


def inline(text: str) -> Markup:
    """One line of markdown."""
    return Markup(_MARKDOWN.renderInline(text))


def block(text: str, label: str, run_ids: Iterable[str] = ()) -> Markup:
    """Paragraphs, lists and tables; each table scrolls on its own.

    Args:
        text: markdown.
        label: what a screen reader calls the tables.
        run_ids: in table cells these become links that open the run's card.
    """
    known = {str(escape(run_id)): run_id for run_id in run_ids}

    def cell(found: re.Match[str]) -> str:
        text, end = found[1], found[2]
        return f">{run_link(known[text])}{end}" if text in known else found[0]

    html = _TABLE.sub(lambda found: _scrolling(found[0], label), _MARKDOWN.render(text))
    return Markup(_CELL.sub(cell, html) if known else html)


def breakable(name: str) -> Markup:
    """HTML of a name that a narrow column breaks behind "_" or "+", if it has to."""
    return Markup(re.sub(r"([_+])(?=[^<>]*(?:<|$))", r"\1<wbr>", str(name)))


def run_link(run_id: str, text: Markup | None = None) -> Markup:
    """A link that opens the card of a run."""
    link = Markup('<a class="run" href="#run-{}">{}</a>')
    return link.format(run_id, run_id if text is None else text)


def _group_heading(found: re.Match[str]) -> str:
    n_columns = 1 + found[2].count("<td")
    title = f'<th scope="rowgroup" colspan="{n_columns}"><span>{found[1]}</span></th>'
    return f'<tr class="group">{title}</tr>'


def _row_heading(found: re.Match[str]) -> str:
    return f'<tr>\n<th scope="row"{found[1]}>{breakable(found[2])}</th>'


def _scrolling(table: str, label: str) -> str:
    """A table with row headers, in a region that keyboards can scroll."""
    headed = _GROUP.sub(_group_heading, table)
    headed = _FIRST_CELL.sub(_row_heading, headed)
    headed = headed.replace("<th>", '<th scope="col">').replace(
        "<th style", '<th scope="col" style'
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"{headed}</div>"
    )
