"""Rules of the repository itself; each check is shown to catch a counter-example."""

import ast
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.findings import Study
from tools.readme import RESULTS, filled

ROOT = Path(__file__).resolve().parent.parent
MAX_FUNCTION_LINES = 45
MAX_ADR_LINES = 40
MAX_README_LINES = 150
LOCKS = ("requirements.lock", "requirements-dev.lock")
MAX_PACKAGES = 43
"""That `make bench` installs, without pip and growbench itself."""

MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9.])(/(?:work|tmp|root|home)/\S*)", re.MULTILINE)
LEFTOVER = re.compile(r"#.*\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
PLUGIN = re.compile(r"\b([a-z_]\w*(?:\.\w+)+):([A-Z]\w*)")
PIN = re.compile(r"[A-Za-z0-9][\w.-]*==\d[\w.]*")
VERSION_HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\]", re.MULTILINE)


def tracked_files() -> list[Path]:
    """Files that are, or are about to be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Relative name and text of every tracked text file; all of them if no suffix is given."""
    for path in tracked_files():
        if not suffixes or path.suffix in suffixes:
            try:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a figure


def project() -> dict[str, Any]:
    """The project table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def pins(lock: str) -> list[str]:
    """Lines of a lock that name a package."""
    lines = (ROOT / lock).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r "))]


def unmet(asked: list[str], pinned: list[str]) -> list[str]:
    """Requirements that the pins do not satisfy."""
    versions = {canonicalize_name(n): v for n, v in (line.split("==") for line in pinned)}
    requirements = map(Requirement, asked)
    return [
        str(requirement)
        for requirement in requirements
        if (pin := versions.get(canonicalize_name(requirement.name))) is None
        or pin not in requirement.specifier
    ]


def long_functions(source: str) -> list[str]:
    """Names of the functions in `source` that are longer than allowed."""
    functions = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [
        node.name
        for node in functions
        if node.end_lineno and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]


def plugins_of_configs() -> list[tuple[str, str, str]]:
    """Configuration, module and class of every "module:Class" in configs/."""
    return [
        (name, module, cls)
        for name, text in texts(".yaml", ".yml")
        if name.startswith("configs/")
        for module, cls in PLUGIN.findall(re.sub(r"#.*", "", text))
    ]


def test_every_class_that_a_configuration_names_exists() -> None:
    missing = [
        f"{name}: {module}:{cls}"
        for name, module, cls in plugins_of_configs()
        if not hasattr(importlib.import_module(module), cls)
    ]
    assert missing == []


def test_every_method_file_names_a_class_or_another_method_file() -> None:
    named = {name for name, _, _ in plugins_of_configs()}
    derived = {name for name, text in texts(".yaml") if re.search(r"^defaults:", text, re.M)}
    methods = {name for name, _ in texts(".yaml") if name.startswith("configs/method/")}
    assert methods
    assert methods - named - derived == set()


def test_every_baseline_is_named_by_a_configuration() -> None:
    baselines = {f"baselines.{path.stem}" for path in (ROOT / "baselines").glob("[!_]*.py")}
    assert baselines - {module for _, module, _ in plugins_of_configs()} == set()


def test_finds_the_classes_that_a_configuration_names() -> None:
    text = 'target: "baselines.stacking:Stacking"\nat: benchmark.schedule:AtFractions\ntime: 12:30'
    assert PLUGIN.findall(text) == [
        ("baselines.stacking", "Stacking"),
        ("benchmark.schedule", "AtFractions"),
    ]


def test_no_file_but_a_test_names_a_path_of_one_machine() -> None:
    found = [
        f"{name}: {path}"
        for name, text in texts()
        if not name.startswith("tests/")
        for path in MACHINE_PATH.findall(text)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["see /home/me/x", '"/tmp/run.log"', "/root/a", "-o=/work/main/b"])
def test_finds_a_path_of_one_machine(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["results/tmp/x", "example.org/home/x", "a/work/b", "/usr/bin/env"]
)
def test_does_not_mistake_other_paths_for_those_of_a_machine(text: str) -> None:
    assert not MACHINE_PATH.search(text)


def test_no_code_is_left_unfinished() -> None:
    code = [*texts(".py", ".yaml", ".yml"), ("Makefile", (ROOT / "Makefile").read_text())]
    assert [name for name, text in code if LEFTOVER.search(text)] == []


def test_finds_unfinished_code() -> None:
    assert LEFTOVER.search("x = 1  # TO" + "DO: later")


@pytest.mark.slow
def test_the_readme_says_what_its_generator_gives_and_fits_on_a_few_screens() -> None:
    page = (ROOT / "README.md").read_text()
    assert filled(page, Study(RESULTS)) == page
    assert len(page.splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_everything_exactly_and_sorted(lock: str) -> None:
    found = pins(lock)
    assert [line for line in found if not PIN.fullmatch(line)] == []
    assert found == sorted(found, key=str.lower)


@pytest.mark.parametrize("line", ["torch>=2", "torch==2.13.0+cpu", "-e .", "torch @ file:///w.whl"])
def test_knows_an_inexact_pin(line: str) -> None:
    assert not PIN.fullmatch(line)


def test_the_locks_hold_what_running_and_what_developing_ask_for() -> None:
    running, developing = map(pins, LOCKS)
    table = project()
    assert unmet(table["dependencies"], running) == []
    assert unmet(table["optional-dependencies"]["dev"], developing) == []
    assert "torch==2.13.0" in running
    assert set(running) & set(developing) == set()
    assert len(running) <= MAX_PACKAGES


def test_finds_a_requirement_that_a_lock_does_not_meet() -> None:
    assert unmet(
        ["rich>=13", "torch==2.13.0", "Markdown_It-py"], ["rich==12", "torch==2.13.0"]
    ) == [
        "rich>=13",
        "Markdown_It-py",
    ]


def test_the_newest_version_in_the_changelog_is_the_project_s() -> None:
    versions = VERSION_HEADING.findall((ROOT / "CHANGELOG.md").read_text())
    assert versions[0] == project()["version"]


def test_every_decision_is_short_and_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    decisions = sorted(folder.glob("[0-9]*.md"))
    assert decisions
    assert [path.name for path in decisions if f"({path.name})" not in index] == []
    lengths = {path.name: len(path.read_text().splitlines()) for path in decisions}
    assert {name: n for name, n in lengths.items() if n > MAX_ADR_LINES} == {}


def test_functions_are_short() -> None:
    found = [
        f"{name}: {function}"
        for name, text in texts(".py")
        if name.startswith(("benchmark/", "baselines/"))
        for function in long_functions(text)
    ]
    assert found == []


def test_finds_a_long_function() -> None:
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def long():\n{body}") == ["long"]
    assert long_functions(f"def short():\n{body[: -len('    pass') - 1]}") == []
