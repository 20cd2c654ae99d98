"""Figures show what the records say, in labels that can be read."""

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_records import BUDGET, SMALL, SUITE, TARGET, Planted, write_records

from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.curve_plots import curves_flops, methods
from benchmark.report.drawing import WIDTH, Drawing, Plot
from benchmark.report.figures import OPTIONAL, PLOTS, draw, styled
from benchmark.report.files import render
from benchmark.report.score_plots import differences


def analysis(folder: Path, *more: Planted, noise: float = 0.0) -> Analysis:
    return analyse_folder(write_records(folder, (*SUITE, *more), noise=noise))


def words(plot: Plot) -> list[str]:
    texts = plot.figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text.get_text() for text in texts if isinstance(text, Text) and text.get_text()]


def overlapping(figure: Figure, names: list[str]) -> list[tuple[str, str]]:
    """Pairs of texts that contain a name and cover one another."""
    figure.savefig(io.BytesIO())  # legends are laid out only now
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    visible = [text for text in texts if text.get_visible()]
    shown = [text for text in visible if any(name in text.get_text() for name in names)]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    return [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]


@pytest.mark.slow
def test_every_figure_has_its_numbers_beside_it(tmp_path: Path) -> None:
    files = dict(draw(Drawing(analysis(tmp_path))))
    assert set(files) == {f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg", "csv")}
    curves = pd.read_csv(io.BytesIO(files["curves_flops.csv"]))
    end = curves[(curves.method == "scratch") & (curves.what == "curve")].iloc[-1]
    assert (end.flops, end.n) == (BUDGET, 3)
    assert end.bpb == pytest.approx(2.5)
    growth = curves[(curves.method == "fast") & (curves.what == "growth")].iloc[0]
    assert growth.flops == pytest.approx(0.25 * BUDGET)


@pytest.mark.slow
def test_figures_are_the_same_bytes_from_the_same_records(tmp_path: Path) -> None:
    assert dict(draw(Drawing(analysis(tmp_path)))) == dict(draw(Drawing(analysis(tmp_path))))


def test_an_arrow_at_equal_loss_tells_the_speed_up(tmp_path: Path) -> None:
    drawing = Drawing(analysis(tmp_path))
    assert "1.30x fast" in words(curves_flops(drawing))
    assert "1.30x" in words(methods(drawing))


def test_there_is_no_arrow_for_a_loss_that_was_not_reached(tmp_path: Path) -> None:
    slow = tuple(method for method in SUITE if method.name != "fast")
    drawing = Drawing(analyse_folder(write_records(tmp_path, slow)))
    assert not drawing.faster
    assert not [word for word in words(curves_flops(drawing)) if "x " in word]


def test_differences_are_those_of_the_table(tmp_path: Path) -> None:
    made = analysis(tmp_path, noise=0.01)
    shown = differences(Drawing(made)).data
    table = made.tables["comparisons"]
    table = table[(table.against == "scratch") & (table.role == "method")]
    expected = dict(zip(table.method, table.difference, strict=True))
    shown = shown[shown.against == "scratch"]
    assert dict(zip(shown.method, shown.difference, strict=True)) == expected


@pytest.mark.slow
def test_names_do_not_cover_one_another(tmp_path: Path) -> None:
    sizes = (SMALL, TARGET)
    many = [Planted(name=f"stacking+scaled+rewarm+early+x{i}", sizes=sizes) for i in range(12)]
    drawing = Drawing(analysis(tmp_path, *many))
    names = [method.name for method in (*SUITE, *many)]
    with styled():
        for plot in PLOTS.values():
            figure = plot(drawing).figure
            assert figure.get_figwidth() == WIDTH
            assert overlapping(figure, names) == []


def test_finds_names_that_cover_one_another() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one name")
    figure.text(0.51, 0.5, "two names")
    assert overlapping(figure, ["name"]) == [("one name", "two names")]


TABLES: dict[str, list[dict[str, Any]]] = {
    "tuning_best_of": [
        {"method": name, "k": k, "expected_val_bpb": 2.6 - 0.01 * k}
        for name in ("net2net", "stacking")
        for k in (1, 2, 3)
    ],
    "main_effects": [
        {"factor": "operator", "level": level, "reference": "stacking", "effect": effect,
         "low": effect - 0.01, "high": effect + 0.01}
        for level, effect in (("stacking", 0.0), ("net2net", 0.02))
    ],
    "effect_shares": [
        {"term": "operator", "kind": "factor", "share": 0.6},
        {"term": "left over", "kind": "residual", "share": 0.4},
    ],
}  # fmt: skip


@pytest.mark.slow
def test_tuning_and_factors_have_figures_where_they_have_tables(tmp_path: Path) -> None:
    made = analysis(tmp_path)
    tables = {name: pd.DataFrame(rows) for name, rows in TABLES.items()}
    more = replace(made, tables={**made.tables, **tables})
    added = dict(draw(Drawing(more))).keys() - dict(draw(Drawing(made))).keys()
    assert added == {f"{name}.{kind}" for name in OPTIONAL for kind in ("png", "svg", "csv")}
    figures = {name: plot(Drawing(more)) for name, (_, plot) in OPTIONAL.items()}
    assert "2.570  stacking" in words(figures["tuning_best_of"])
    assert {"operator: stacking", "net2net"} <= set(words(figures["main_effects"]))


def test_a_suite_without_scratch_has_its_figures_and_no_verdict(tmp_path: Path) -> None:
    write_records(tmp_path, tuple(method for method in SUITE if method.name == "fast"))
    files = render(tmp_path)
    assert b"**No verdict:**" in files["report.md"]
    assert files["figures/hull.png"]
