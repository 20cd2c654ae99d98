"""What code a result comes from: digests of source files, found by reading their imports.

Whatever an import statement names is followed, however it is bound, at the top of a file or inside
a function, and so on from there; nothing is executed. The standard library and installed packages
are left out: provenance has their versions. Names that a program computes are beyond this, and so
are data files.

A digest is that of the files' normalised text (`source.py`), in no order and without their names:
a file that is moved or described anew keeps it. Each file is read once per process, so that what a
process says of code that it has loaded stays true when the file is edited later.
"""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache, partial
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from benchmark.base.paths import ROOT
from benchmark.base.source import normalised

SCIENCE = ("growth", "model", "stage", "training")
"""Rooms of the harness whose code, with that of three modules, determines what a stage computes."""

_HARNESS = "benchmark"
_SCIENCE = {f"{_HARNESS}.{name}" for name in ("base.seeding", "data.stream", "data.tokens")} | {
    f"{_HARNESS}.{room}.{file.stem}"
    for room in SCIENCE
    for file in (ROOT / _HARNESS / room).glob("[!_]*.py")
}
_COVERED = _SCIENCE | {_HARNESS}  # the package itself only points at its parts
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()


@cache
def science() -> str:
    """Digest of the harness's code that determines results."""
    return _digest(_SCIENCE)


def code(*classes: type) -> str:
    """Digest of the files that the classes and their bases come from, and of all they import.

    Installed packages count if the classes, or bases made for this harness, live in them. Modules
    in `SCIENCE` do not, as `science` covers them; the harness's other modules do where imported.
    """
    bases = {base for cls in classes for base in cls.__mro__}
    homes = {_HARNESS} | {_top(base.__module__) for base in bases if _is_made_for_harness(base)}
    return _reached(frozenset(base.__module__ for base in bases), frozenset(homes))


@cache
def _reached(modules: frozenset[str], homes: frozenset[str]) -> str:
    """Digest of these modules and of all that can be reached from them by imports."""
    found, waiting = set[str](), set(modules)
    while waiting := {name for name in waiting - found if _counts(name, homes)}:
        found |= waiting
        waiting = {imported for name in waiting for imported in _imported_by(name)}
    return _digest(found)


def _digest(modules: Iterable[str]) -> str:
    contents = {_content(name) for name in modules} - {""}
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()[:16]


@cache
def _content(module: str) -> str:
    """SHA-256 of a module's normalised source; nothing of one that does nothing."""
    file = _source(module)
    text = file.read_bytes()
    if file.suffix == ".py":
        text = normalised(text, partial(_may_move, _top(module)))
    return hashlib.sha256(text).hexdigest() if text else ""


def _may_move(package: str, imported: str) -> bool:
    """Whether a module is no part of Python, nor of an installed package other than this one."""
    file = _file(top := _top(imported))
    return top in (package, _HARNESS) or (file is not None and not _is_brought(file))


def _is_brought(file: Path) -> bool:
    """Whether Python or an installation brought a file."""
    return _is_installed(file) or file.is_relative_to(_STDLIB)


def _is_installed(file: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def _is_made_for_harness(cls: type) -> bool:
    return any(_top(base.__module__) == _HARNESS for base in cls.__mro__)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _counts(module: str, homes: frozenset[str]) -> bool:
    """Whether this is code of a method."""
    if module in _COVERED or (file := _file(module)) is None:
        return False
    return not _is_brought(file) or (_is_installed(file) and _top(module) in homes)


def _source(module: str) -> Path:
    file = _file(module)
    assert file is not None, module
    return file


@cache
def _file(module: str) -> Path | None:
    """Where a module's code lies; None if nothing of that name can be imported from a file."""
    if module == "__main__":
        name = getattr(sys.modules[module], "__file__", None)
    else:
        spec = _spec(module)
        name = spec.origin if spec is not None and spec.has_location else None
    return Path(name).resolve() if name else None


@cache
def _spec(module: str) -> ModuleSpec | None:
    """How the module would be imported, found without importing what it lies in."""
    parent, _, _ = module.rpartition(".")
    if not parent:
        try:
            return importlib.util.find_spec(module)
        except ValueError:  # a loaded module that says nothing of where it comes from
            return None
    package = _spec(parent)
    folders = package.submodule_search_locations if package is not None else None
    return PathFinder.find_spec(module, folders) if folders is not None else None


@cache
def _imported_by(module: str) -> frozenset[str]:
    """Modules that a module imports, the packages they lie in, and names that may be modules."""
    file, spec = _source(module), None if module == "__main__" else _spec(module)
    if file.suffix != ".py":
        return frozenset()
    is_package = spec is not None and spec.submodule_search_locations is not None
    package = module if is_package else module.rpartition(".")[0]
    tree = ast.parse(file.read_bytes(), filename=str(file))
    named = (name for node in ast.walk(tree) for name in _named(node, package))
    return frozenset(outer for name in named for outer in _outwards(name))


def _named(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        source = ".".join([*above, *filter(None, [node.module])])
        yield from (f"{source}.{alias.name}" for alias in node.names)


def _outwards(name: str) -> Iterator[str]:
    """A dotted name and everything it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]
