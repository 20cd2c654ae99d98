"""The text of report.html: what it holds, that it is safe, and that it needs nothing else."""

import hashlib
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import synthetic_records as toy
from synthetic_records import SUITE, Planted, write_records
from typing_extensions import override

from benchmark.records.card import card
from benchmark.records.folder import load_suite, write_run
from benchmark.report import formats
from benchmark.report.analysis import analyse_folder
from benchmark.report.drawing import Drawing
from benchmark.report.files import check, render, write
from benchmark.report.html import markup
from benchmark.report.html.curves import curves
from benchmark.report.html.run_cards import run_cards
from benchmark.report.html.verdict_table import verdict_table
from benchmark.report.markdown import verdict_rows
from benchmark.report.statistics import mean_interval

NASTY = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "\"&lt;b&gt;'")
FAST = next(method for method in SUITE if method.name == "fast")
SUITE_OF_NASTY = (*SUITE, *(Planted(name=name, sizes=(toy.SMALL, toy.TARGET)) for name in NASTY))


class Elements(HTMLParser):
    """Every start tag of a page, and the text of its scripts and of its table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    @override
    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.tags.append(("/script", {}))

    @property
    def data(self) -> dict[str, Any]:
        """What the scripts of the page read."""
        kinds = [attrs.get("type") for tag, attrs in self.tags if tag == "script"]
        loaded: dict[str, Any] = json.loads(self.scripts[kinds.index("application/json")])
        return loaded


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of a report on records with a missing run and with names like markup."""
    folder = write_records(
        tmp_path_factory.mktemp("records"),
        SUITE_OF_NASTY,
        noise=0.01,
        watermark="<i>not</i> a result",
        missing=(("slow", 1),),
    )
    return {k: v.decode() for k, v in render(folder).items() if k.startswith("report")}


@pytest.fixture(scope="module")
def elements(files: dict[str, str]) -> Elements:
    """The elements of its report.html."""
    return Elements(files["report.html"])


@pytest.mark.slow
def test_is_one_file_that_fetches_nothing(elements: Elements) -> None:
    for tag, attrs in elements.tags:
        addresses = [
            attrs[key] or "" for key in ("src", "href", "srcset", "action") if key in attrs
        ]
        assert all(address.startswith(("data:", "#")) for address in addresses), (tag, addresses)
        assert not any(key.startswith("on") for key in attrs), attrs


@pytest.mark.slow
def test_same_records_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    write_records(tmp_path, noise=0.01)
    script = (
        "import hashlib, pathlib, sys; from benchmark.report.files import render; page = "
        "render(pathlib.Path(sys.argv[1]))['report.html']; print(hashlib.sha256(page).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert other.stdout.strip() == hashlib.sha256(render(tmp_path)["report.html"]).hexdigest()


@pytest.mark.slow
def test_an_edited_number_in_the_page_is_found(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0,))
    write(tmp_path)
    path = tmp_path / "report.html"
    path.write_text(path.read_text(encoding="utf-8").replace("2.5000", "2.4000", 1), "utf-8")
    assert check(tmp_path) == ["report.html"]


@pytest.mark.slow
def test_nothing_of_a_record_becomes_markup(elements: Elements) -> None:
    tags = elements.tags
    assert not any("onerror" in attrs or attrs.get("src") == "x" for _, attrs in tags)
    assert len(elements.scripts) == 4
    assert [name for name in NASTY if name not in elements.text] == []
    assert {method["name"] for method in elements.data["methods"]} >= set(NASTY)
    assert "<i>not</i> a result" in elements.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**better**, `a<b>`", "<strong>better</strong>, <code>a&lt;b&gt;</code>"),
        ("<b>x</b> & &lt;", "&lt;b&gt;x&lt;/b&gt; &amp; &amp;lt;"),
        ("[a](javascript:alert(1))", "[a](javascript:alert(1))"),
        ("![a](https://example.org/x.png)", "![a](https://example.org/x.png)"),
    ],
)
def test_understands_emphasis_and_code_and_no_more(text: str, shown: str) -> None:
    assert markup.inline(text) == shown


def test_a_name_breaks_behind_its_parts_and_nowhere_else() -> None:
    shown = markup.breakable(markup.inline("`a_b+<c>` (= d_e)"))
    assert shown == "<code>a_<wbr>b+<wbr>&lt;c&gt;</code> (= d_<wbr>e)"
    assert shown.striptags() == "a_b+<c> (= d_e)"


def test_tables_have_headers_for_rows_and_columns_and_links_for_runs() -> None:
    shown = markup.block("| run | n |\n|:--|--:|\n| 0a1 | 1 |", "All runs", ["0a1"])
    assert '<th scope="col" style="text-align:left">run</th>' in shown
    assert re.search(r'<th scope="row"[^>]*><a [^>]*href="#run-0a1">0a1</a></th>', shown)
    assert 'tabindex="0" aria-label="All runs"' in shown


def test_the_verdict_table_says_what_report_md_says(tmp_path: Path) -> None:
    found = analyse_folder(write_records(tmp_path, noise=0.01))
    table = verdict_table(found)
    text = formats.table(verdict_rows(found)).splitlines()
    headings, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text)
    assert list(table["headings"]) == headings
    plain = [[re.sub(r"[*`]", "", cell) for cell in row] for row in cells[1:]]
    lines = [line["cells"] for _, group in table["groups"] for line in group]
    assert [[cell["html"].striptags() for cell in line] for line in lines] == plain


def test_columns_of_numbers_sort_by_the_unrounded_number(tmp_path: Path) -> None:
    wild = Planted(name="wild", status="diverged", ends_at=0.6)
    found = analyse_folder(write_records(tmp_path, (*SUITE, wild), noise=0.01))
    table = verdict_table(found)
    headings = list(table["headings"])
    lines = [line["cells"] for _, group in table["groups"] for line in group]
    column = headings.index("test bpb")
    keys = {line[0]["sort"]: line[column]["sort"] for line in lines}
    summary = found.tables["summary"].set_index("method")
    assert {name: float(key) for name, key in keys.items()} == dict(summary.test_bpb)
    assert (keys["wild"], math.inf) == ("Infinity", summary.test_bpb["wild"])
    assert lines[0][headings.index("minus scratch")]["interval"] is not None


def test_the_chart_shows_scratch_the_best_fixed_size_and_the_best_methods_first(
    tmp_path: Path,
) -> None:
    many = tuple(Planted(name=f"m{i}", offset=0.01 * i) for i in range(9))
    write_records(
        tmp_path, (*(m for m in SUITE if m.role != "method"), *reversed(many)), seeds=(0,)
    )
    shown = {m["name"] for m in curves(Drawing(analyse_folder(tmp_path)))["methods"] if m["shown"]}
    assert shown == {"scratch", *(f"m{i}" for i in range(6))}


@pytest.mark.slow
def test_a_band_is_that_of_the_figures_and_each_run_keeps_its_own_points(
    elements: Elements,
) -> None:
    fast = next(m for m in elements.data["methods"] if m["name"] == "fast")
    own = [seed["bpb"] for seed in fast["seeds"]]
    assert all(seed["aligned"] for seed in fast["seeds"])
    last = mean_interval([bpb[-1] for bpb in own])
    found = [fast["mean"][name][-1] for name in ("bpb", "low", "high")]
    assert found == pytest.approx([last.value, last.low, last.high])
    assert (fast["mean"]["n"], fast["mean"]["band"]) == (3, "95 % interval")
    evaluations = [e for e in toy.events(FAST, 1, 0.01) if e["kind"] == "evaluation"]
    assert fast["seeds"][1]["run"] == toy.run_id("fast", 1)
    assert {round(e["bpb"], 6) for e in evaluations} <= set(own[1])


@pytest.mark.slow
def test_minus_scratch_is_the_difference_of_the_same_seed_at_equal_compute(
    elements: Elements,
) -> None:
    fast, scratch = (next(m for m in elements.data["methods"] if m["name"] == name)
                     for name in ("fast", "scratch"))  # fmt: skip
    ends = [
        [e["bpb"] for e in toy.events(m, seed, 0.01) if e["kind"] == "evaluation"][-1]
        for m in (FAST, SUITE[0])
        for seed in (0, 1, 2)
    ]
    gaps = [ours - theirs for ours, theirs in zip(ends[:3], ends[3:], strict=True)]
    assert [seed["minus"][-1] for seed in fast["seeds"]] == pytest.approx(gaps, abs=1e-6)
    assert fast["minus"]["bpb"][-1] == pytest.approx(sum(gaps) / 3, abs=1e-6)
    assert set(scratch["minus"]["bpb"]) == {0.0}


def test_seeds_that_grow_at_different_times_are_not_said_to_be_at_the_mean(tmp_path: Path) -> None:
    write_records(tmp_path, seeds=(0, 1))
    early = replace(FAST, sizes=(toy.SMALL, toy.SMALL, toy.TARGET))
    write_run(tmp_path, toy.events(early, 1, 0.0), toy.config(FAST, 1, (0, 1)), toy.PROVENANCE)
    found = curves(Drawing(analyse_folder(tmp_path)))["methods"]
    fast = next(method for method in found if method["name"] == "fast")
    assert not all(seed["aligned"] for seed in fast["seeds"])


@pytest.mark.slow
def test_every_run_has_its_result_configuration_and_provenance(elements: Elements) -> None:
    data = elements.data
    assert len(data["runs"]) == len(SUITE_OF_NASTY) * 3
    cards = {run["id"]: dict(run["sections"]) for run in data["runs"]}
    fast = cards[toy.run_id("fast", 0)]
    assert {"Result", "Configuration: method", "Provenance", "Packages"} <= fast.keys()
    score = next(e["bpb"] for e in toy.events(FAST, 0, 0.01) if e.get("split") == "test")
    assert ["test bpb", f"{score:.4f}"] in data["sections"][fast["Result"]]
    assert ["torch", "2.13.0"] in data["sections"][fast["Packages"]]
    missing = cards[toy.run_id("slow", 1)]
    assert data["sections"][missing["Result"]][0] == ["status", "missing"]


def complete(folder: Path) -> None:
    """Add to toy records what a reporting card wants and the toys do without."""
    for run in load_suite(folder).runs:
        events = [dict(event) for event in run.events]
        events[0] |= {"corpus_sha256": "0" * 64, "val_bytes": 1, "test_bytes": 1}
        events[-1] |= {"peak_memory_scope": "process"}
        for event in events:
            if event["kind"] == "stage":
                event |= {"n_params_by_group": {"blocks": event["n_params"]}, "frozen": []}
        method = run.config["method"] | {"ladder": {"n_growths": len(run.of("growth"))}}
        write_run(folder, events, {**run.config, "method": method}, run.provenance)


def test_every_field_of_the_reporting_card_is_shown(tmp_path: Path) -> None:
    complete(write_records(tmp_path, seeds=(0,)))
    found = analyse_folder(tmp_path)
    shown = run_cards(found)
    for run, record in zip(shown["runs"], found.frames.suite.runs, strict=True):
        sections = dict(run["sections"])
        for title, fields in card(record).items():
            names = {
                name.split(".")[0] for name, _ in shown["sections"][sections[f"Card: {title}"]]
            }
            assert names == fields.keys()
    fast = dict(next(run["sections"] for run in shown["runs"] if run["method"] == "fast"))
    assert ("events.0.to.n_layer", "4") in shown["sections"][fast["Card: growth"]]


@pytest.mark.slow
def test_a_card_with_a_gap_says_which(elements: Elements) -> None:
    data = elements.data
    gap = data["sections"][dict(data["runs"][0]["sections"])["Card"]]
    assert gap == [
        ["incomplete", f"run {data['runs'][0]['id']}: reporting card: data.sha256 is empty"]
    ]


@pytest.mark.slow
def test_the_page_holds_every_section_of_report_md(files: dict[str, str]) -> None:
    titles = re.findall(r"^## (.+)$", files["report.md"], re.MULTILINE)
    assert re.findall(r"<summary><h2>(.+)</h2>", files["report.html"]) == titles
    assert "](report.html)" in files["report.md"]
