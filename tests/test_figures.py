"""Figures show what the records say, in labels that can be read."""

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_records import BUDGET, SMALL, SUITE, TARGET, Planted, write_records

from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.drawing import WIDTH, Drawing, difference
from benchmark.report.files import render
from benchmark.report.plots import PLOTS, curves, differences, draw, main_effects, styled


def analysis(folder: Path, *more: Planted, noise: float = 0.0) -> Analysis:
    return analyse_folder(write_records(folder, (*SUITE, *more), noise=noise))


def words(figure: Figure) -> list[str]:
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
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
def test_every_figure_is_drawn(tmp_path: Path) -> None:
    files = dict(draw(Drawing(analysis(tmp_path))))
    assert set(files) == {f"{name}.png" for name in PLOTS}


def test_curves_end_at_the_budget_with_the_mean_over_seeds(tmp_path: Path) -> None:
    drawing = Drawing(analysis(tmp_path))
    end = drawing.curves["scratch"].iloc[-1]
    assert (end.flops, end.n) == (BUDGET, 3)
    assert end.bpb == pytest.approx(2.5)
    assert drawing.growths["fast"][0]["flops"] == pytest.approx(0.25 * BUDGET)


@pytest.mark.slow
def test_figures_are_the_same_bytes_from_the_same_records(tmp_path: Path) -> None:
    assert dict(draw(Drawing(analysis(tmp_path)))) == dict(draw(Drawing(analysis(tmp_path))))


def test_what_is_drawn_is_said_and_nothing_else(tmp_path: Path) -> None:
    said = " ".join(words(curves(Drawing(analysis(tmp_path)))))
    assert "minus scratch with the same seed; methods with the lowest test bpb" in said
    few = tuple(method for method in SUITE if method.name in ("scratch", "fast"))
    made = analyse_folder(write_records(tmp_path / "few", few, seeds=(0,)))
    assert "the lowest test bpb" not in " ".join(words(curves(Drawing(made))))


def test_lines_of_one_panel_differ_without_their_colours(tmp_path: Path) -> None:
    many = [Planted(name=f"m{i}", sizes=(SMALL, TARGET)) for i in range(20)]
    drawing = Drawing(analysis(tmp_path, *many))
    looks = [drawing.looks[name] for name in drawing.prominent]
    styles = {(str(look.dash), look.width) for look in looks}
    assert len(styles) == len(looks) == 7


def test_a_curve_minus_scratch_is_that_of_the_same_seed_at_equal_compute(tmp_path: Path) -> None:
    drawing = Drawing(analysis(tmp_path))
    assert np.allclose(drawing.minus["scratch"].bpb, 0)
    assert drawing.minus["fast"].bpb.iloc[-1] == pytest.approx(1.3**-0.25 - 1)
    scratch = {"flops": np.array([1.0, 2.0]), "bpb": np.array([3.0, 2.0])}
    ours = {"flops": np.array([0.5, 1.5, 3.0]), "bpb": np.array([4.0, 2.0, 1.0])}
    gap = difference(ours, scratch)["bpb"]
    assert np.array_equal(gap, [np.nan, -0.5, np.nan], equal_nan=True)


def test_differences_are_those_of_the_table(tmp_path: Path) -> None:
    made = analysis(tmp_path, noise=0.01)
    (axes,) = differences(Drawing(made)).axes
    (points,) = (line for line in axes.lines if line.get_label() == "minus scratch")
    table = made.tables["comparisons"]
    table = table[(table.against == "scratch") & (table.role == "method")]
    assert sorted(np.asarray(points.get_xdata(), float)) == sorted(table.difference)


@pytest.mark.slow
def test_names_do_not_cover_one_another(tmp_path: Path) -> None:
    sizes = (SMALL, TARGET)
    many = [Planted(name=f"stacking+scaled+rewarm+early+x{i}", sizes=sizes) for i in range(12)]
    drawing = Drawing(analysis(tmp_path, *many))
    names = [method.name for method in (*SUITE, *many)]
    with styled():
        for plot in PLOTS.values():
            figure = plot(drawing)
            assert figure.get_figwidth() == WIDTH
            assert overlapping(figure, names) == []


def test_finds_names_that_cover_one_another() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one name")
    figure.text(0.51, 0.5, "two names")
    assert overlapping(figure, ["name"]) == [("one name", "two names")]


def test_factors_have_a_figure_where_they_have_tables(tmp_path: Path) -> None:
    effects = pd.DataFrame([
        {"factor": "operator", "level": level, "reference": "stacking", "effect": effect,
         "effect_low": effect - 0.01, "effect_high": effect + 0.01}
        for level, effect in (("stacking", 0.0), ("net2net", 0.02))
    ])  # fmt: skip
    assert {"operator: stacking", "net2net"} <= set(words(main_effects(effects)))
    made = analysis(tmp_path)
    with_it = replace(made, tables={**made.tables, "main_effects": effects})
    assert "main_effects.png" in dict(draw(Drawing(with_it)))


def test_a_suite_without_scratch_has_its_figures_and_no_verdict(tmp_path: Path) -> None:
    write_records(tmp_path, tuple(method for method in SUITE if method.name == "fast"))
    files = render(tmp_path)
    assert b"**No verdict:**" in files["report.md"]
    assert files["figures/curves_flops.png"]
