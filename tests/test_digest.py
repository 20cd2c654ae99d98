"""The digest of a method's code covers all it is made of, and nothing that others are made of."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.base import digest
from benchmark.base.source import normalised
from benchmark.model.transformer import Transformer

FILES = {
    "ours/__init__.py": "",
    "ours/method.py": """
import helpers.sums as h
from helpers import SCALE
from ours.parts import widen
from benchmark.training.baseline import Baseline
from benchmark.records import events
import json


class Method(Baseline):
    def late(self):
        from . import late
        return late
""",
    "ours/parts.py": "from .deep.inner import WIDTH\n\n\ndef widen():\n    return WIDTH\n",
    "ours/deep/__init__.py": "",
    "ours/deep/inner.py": "from ..top import WIDTH\n",
    "ours/top.py": "WIDTH = 1\n",
    "ours/late.py": "LATE = 1\n",
    "ours/unused.py": "UNUSED = 1\n",
    "helpers/__init__.py": "SCALE = 1\n",
    "helpers/sums.py": "def add(a, b):\n    return a + b\n",
}
REACHED = [
    "ours/__init__.py", "ours/method.py", "ours/parts.py", "ours/deep/__init__.py",
    "ours/deep/inner.py", "ours/top.py", "ours/late.py", "helpers/__init__.py", "helpers/sums.py",
]  # fmt: skip


def write(folder: Path, changed: str = "") -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + ("CHANGED = 2\n" if name == changed else ""))


def forget_all() -> None:
    for found in (
        digest._reached,
        digest._content,
        digest._imported_by,
        digest._file,
        digest._spec,
    ):
        found.cache_clear()


def digest_of(folder: Path, module: str, name: str) -> str:
    """The digest of a class that is imported from `folder` alone."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        forget_all()
        return digest.code(getattr(importlib.import_module(module), name))
    finally:
        sys.path.remove(str(folder))
        for loaded in [name for name in sys.modules if name.split(".")[0] in ("ours", "helpers")]:
            del sys.modules[loaded]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    forget_all()


@pytest.fixture
def original(tmp_path: Path) -> str:
    write(tmp_path / "original")
    return digest_of(tmp_path / "original", "ours.method", "Method")


@pytest.mark.parametrize("changed", REACHED)
def test_whatever_is_imported_in_whatever_way_is_part_of_it(
    tmp_path: Path, original: str, changed: str
) -> None:
    """Under another name, for a constant, relatively, within a function, from another package."""
    write(tmp_path / "other", changed)
    assert digest_of(tmp_path / "other", "ours.method", "Method") != original


def test_what_nothing_imports_is_not(tmp_path: Path, original: str) -> None:
    write(tmp_path / "other", "ours/unused.py")
    assert digest_of(tmp_path / "other", "ours.method", "Method") == original


def test_where_the_files_lie_does_not_matter_unless_they_are_installed(
    tmp_path: Path, original: str
) -> None:
    """A method in an installed package is still its own code; a helper there has a version."""
    installed = tmp_path / "site-packages"
    write(installed)
    alone = digest_of(installed, "ours.method", "Method")
    shutil.rmtree(installed)
    write(installed, "helpers/sums.py")
    assert digest_of(installed, "ours.method", "Method") == alone != original
    shutil.rmtree(installed)
    write(installed, "ours/top.py")
    assert digest_of(installed, "ours.method", "Method") != alone


def test_a_module_of_the_harness_that_is_no_science_counts_where_it_is_imported(
    tmp_path: Path, original: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "same")
    monkeypatch.setattr(digest, "_COVERED", digest._COVERED | {"benchmark.records.events"})
    assert digest_of(tmp_path / "same", "ours.method", "Method") != original


def test_the_rest_of_the_harness_is_not_dragged_in(tmp_path: Path, original: str) -> None:
    """A report may change its looks without a stage being trained again."""
    write(tmp_path / "other")
    source = (tmp_path / "other/ours/top.py").read_text()
    (tmp_path / "other/ours/top.py").write_text(f"{source}import benchmark\n")
    first = digest_of(tmp_path / "other", "ours.method", "Method")
    (tmp_path / "other/ours/top.py").write_text(f"{source}import benchmark.report\n")
    assert digest_of(tmp_path / "other", "ours.method", "Method") != first != original
    reached = digest._imported_by("benchmark")
    assert any(name.startswith("benchmark.report") for name in reached)


def test_a_class_of_the_harness_adds_nothing_to_the_science() -> None:
    assert digest.code(Transformer) == digest._digest([])


def test_a_module_that_moves_stays_what_it_is(tmp_path: Path, original: str) -> None:
    write(tmp_path / "other")
    ours = tmp_path / "other/ours"
    (ours / "lib").mkdir()
    (ours / "lib/__init__.py").write_text('"""A place."""\n')
    (ours / "parts.py").rename(ours / "lib/pieces.py")
    text = (ours / "lib/pieces.py").read_text()
    (ours / "lib/pieces.py").write_text(text.replace("from .deep", "from ..deep"))
    method = (ours / "method.py").read_text()
    method = method.replace("from ours.parts import widen", "from .lib.pieces import widen")
    (ours / "moved.py").write_text(method)
    assert digest_of(tmp_path / "other", "ours.moved", "Method") == original


DESCRIBED = '''
# what this is
import helpers.sums as h
import json  # for nothing
from helpers import SCALE
from ours.parts import (
    widen,  # wider
)

from benchmark.records import events
from benchmark.training.baseline import Baseline


class Method(Baseline):
    """Anything else."""

    # rarely
    def late(self):
        """Another thing."""
        from . import late

        return late
'''


def test_a_file_that_is_described_otherwise_stays_what_it_is(tmp_path: Path, original: str) -> None:
    """Its imports are in another order, too."""
    write(tmp_path / "other")
    (tmp_path / "other/ours/method.py").write_text(DESCRIBED)
    assert digest_of(tmp_path / "other", "ours.method", "Method") == original


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return late", "return [late]"),
        ("import SCALE", "import SCALE as WIDTH"),
        ("import json", "import math"),
        ("class Method(Baseline)", "class Method(Baseline, object)"),
        ("    def late", "    @staticmethod\n    def late"),
    ],
)
def test_an_edited_line_makes_it_another(tmp_path: Path, original: str, old: str, new: str) -> None:
    write(tmp_path / "other")
    path = tmp_path / "other/ours/method.py"
    path.write_text(path.read_text().replace(old, new))
    assert digest_of(tmp_path / "other", "ours.method", "Method") != original


def normal(text: str) -> bytes:
    return normalised(text.encode(), {"here", "there"}.__contains__)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 'a # b'", "x = 'a # c'"),
        ("x = '''a\n\nb'''", "x = '''a\nb'''"),
        ("x = '''a \nb'''", "x = '''a\nb'''"),
        ("x = f'{y} # b'", "x = f'{y} # c'"),
        ("x = 'ä' + y  # ä", "x = 'ä' + z  # ä"),
        ("if x:\n    y()\nz()", "if x:\n    y()\n    z()"),
        ("from math import sin", "from cmath import sin"),
        ("import numpy.linalg", "import numpy.fft"),
        ("from here import a", "from here import b as a"),
    ],
)
def test_texts_that_do_otherwise_are_told_apart(one: str, other: str) -> None:
    assert normal(one) != normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 'a # b'", "x = 'a # b'  # c"),
        ("x = 1\ny = 2", "x = 1\n\n\ny = 2   \n\n"),
        ("x = 1", "'''Constant.'''\nx = 1\n'''Of what.'''"),
        ("from here import a, b", "from there import b\nfrom here import (\n    a,\n)"),
        ("import here as h", "import there as h"),
        ("x = 1\r\ny = 2", "x = 1\ny = 2"),
    ],
)
def test_texts_that_do_the_same_are_the_same(one: str, other: str) -> None:
    assert normal(one) == normal(other)


def test_the_science_is_that_of_files_that_exist() -> None:
    assert len(digest.science()) == 16
    assert "benchmark.growth.grow" in digest._SCIENCE
    assert all(digest._file(name) for name in digest._SCIENCE)
