"""docs/methods.md says what the methods are, declare and measurably do, and stays current."""

from pathlib import Path

import pytest

from benchmark import contract
from benchmark.base.errors import ConfigError
from benchmark.base.paths import CONFIGS
from benchmark.contract.exactness import Change
from benchmark.model.transformer import ModelConfig
from benchmark.plan.config import load_method
from tools.methods_page.certificate import declared
from tools.methods_page.page import PATH, outdated_rows, outdated_text
from tools.methods_page.sources import source

SMALL = ModelConfig(d_model=8, n_layer=2, n_head=2, d_head=4, d_ff=12, vocab_size=13, seq_len=10)


def change(is_claimed: bool, norm: str = "rmsnorm", **sizes: int) -> Change:
    small = SMALL.__class__(**{**vars(SMALL), "norm": norm})
    return Change(small, small.resized(sizes), is_claimed, error=0.0)


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = PATH.read_text()
    assert old in text
    path = tmp_path / "methods.md"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.slow
def test_the_text_is_current() -> None:
    assert outdated_text() == []


def test_every_method_that_grows_has_a_row_and_every_method_a_place() -> None:
    text = PATH.read_text()
    for name in (path.stem for path in (CONFIGS / "method").glob("*.yaml")):
        assert f"- `{name}` (" in text
        assert (f"| [{name}](#" in text) is (load_method(name).ladder.n_growths > 0)


@pytest.mark.slow
def test_an_edited_deviation_is_found(tmp_path: Path) -> None:
    assert outdated_text(edited(tmp_path, "Deviations:", "Deviations, none:"))


@pytest.mark.slow
def test_a_row_that_is_missing_or_left_over_is_found(tmp_path: Path) -> None:
    assert outdated_text(edited(tmp_path, "| [stacking](#stacking)", "| [gone](#stacking)"))


@pytest.mark.slow
def test_a_measured_number_may_differ_a_little_and_no_more(tmp_path: Path) -> None:
    method = load_method("stacking")
    subject = contract.subject(method.target, method.args)
    assert outdated_rows(subject) == []
    row = next(line for line in PATH.read_text().splitlines() if "[stacking](#" in line)
    number = float(row.partition("~")[2].split()[0])
    near, far = (row.replace(f"~{number:g}", f"~{factor * number:g}") for factor in (1.05, 1.5))
    assert outdated_rows(subject, edited(tmp_path, row, near)) == []
    assert len(outdated_rows(subject, edited(tmp_path, row, far))) == 1
    assert outdated_rows(subject, edited(tmp_path, row, row.replace("| no |", "| yes |")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([change(True, n_layer=4), change(True)], "yes"),
        ([change(False, n_layer=4), change(True)], "no"),
        ([change(True, n_head=4), change(False, n_head=4, n_layer=4)], "except n_layer"),
        (
            [
                change(True, d_model=16),
                change(False, d_model=16, norm="layernorm"),
                change(True, d_ff=24, norm="layernorm"),
            ],
            "except d_model with layernorm",
        ),
        ([change(True, d_model=16), change(False, d_model=12)], "except growth by 1.5"),
        (
            [change(True, d_model=16), change(False, d_model=12), change(True, d_ff=18)],
            "except d_model by 1.5",
        ),
    ],
)
def test_says_where_exactness_is_declared(changes: list[Change], words: str) -> None:
    assert declared(changes) == words


DOCSTRING = "A method.\n\nCompared with (somebody/repository, commit 0123abc).\n\nDeviations: none."


def module(folder: Path, name: str, docstring: str) -> str:
    (folder / f"{name}.py").write_text(f'"""{docstring}"""\n')
    return name


def test_reads_code_and_deviations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = source(module(tmp_path, "told_method", DOCSTRING))
    assert found.code == (("somebody/repository", "0123abc"),)
    assert found.deviations == (("told_method", "Deviations: none."),)
    unofficial = DOCSTRING.replace("A method.", "A method. No official\ncode is known.")
    assert not source(module(tmp_path, "unofficial_method", unofficial)).is_official


@pytest.mark.parametrize(
    ("name", "docstring", "message"),
    [
        ("silent_method", DOCSTRING.replace("Deviations", "Details"), "must begin with"),
        ("early_method", f"{DOCSTRING}\n\nMore.", "must begin with"),
        ("twofold_method", f"{DOCSTRING}\n\nDeviations: more.", "and only that"),
        ("uncited_method", DOCSTRING.replace("commit", "as of"), "must cite code"),
    ],
)
def test_a_docstring_must_name_code_and_end_with_deviations(
    name: str, docstring: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message):
        source(module(tmp_path, name, docstring))


def test_tells_the_deviations_of_the_parts_too() -> None:
    deviations = dict(source("baselines.bert2bert").deviations)
    assert deviations["baselines.parts.fpi"].startswith("Deviations: all layers share")
