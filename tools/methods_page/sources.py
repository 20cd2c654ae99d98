"""What the module of a method says of itself.

The docstring of a module in configs/method has three parts, in this order: what the method is; the
code it was compared with, each as "OWNER/REPOSITORY, commit HASH", or the words "No official code";
and, as the last paragraph, "Deviations: ...", or "Deviations from WHAT: ...".
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.base.errors import ConfigError

_CODE = re.compile(r"([\w.-]+/[\w.-]+),\s+commit\s+([0-9a-f]{7,40})\b")
_NO_CODE = re.compile(r"\bno\s+official\s+code\b", re.IGNORECASE)
_DEVIATIONS = re.compile(r"^Deviations\b[^:]*:", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """The module of a method."""

    name: str
    text: str
    """What the method is, without the deviations."""

    deviations: tuple[tuple[str, str], ...]
    """The last paragraph of the docstring, and that of the parts that have one, by module."""

    code: tuple[tuple[str, str], ...]
    """Repositories on GitHub and commits that it was compared with; empty if there is none."""

    is_official: bool
    """False if the docstring says that there is no official code."""


def source(module: str) -> Source:
    """Read a module.

    Raises:
        ConfigError: its docstring names no code, or does not end with the deviations.
    """
    docstring = _docstring(module)
    *paragraphs, last = docstring.split("\n\n")
    text = "\n\n".join(paragraphs)
    if not _DEVIATIONS.match(last) or _DEVIATIONS.search(text):
        raise ConfigError(
            f"{module}: the last paragraph of the docstring, and only that, must begin with "
            f"'Deviations: ' or 'Deviations from WHAT: '; it begins with {last[:40]!r}"
        )
    code = tuple(dict.fromkeys(_CODE.findall(docstring)))
    is_official = not _NO_CODE.search(docstring)
    if is_official and not code:
        raise ConfigError(
            f"{module}: the docstring must cite code as 'OWNER/REPOSITORY, commit HASH', or say "
            "'No official code'"
        )
    of_parts = [(part, _docstring(part).split("\n\n")[-1]) for part in sorted(set(_parts(module)))]
    of_parts = [(part, text) for part, text in of_parts if _DEVIATIONS.match(text)]
    return Source(module, text, ((module, last), *of_parts), code, is_official)


def _docstring(module: str) -> str:
    return inspect.getdoc(importlib.import_module(module)) or ""


def _parts(module: str) -> Iterator[str]:
    """The modules in a folder `parts` that one imports, directly or not."""
    package, path = module.partition(".")[0], importlib.import_module(module).__file__
    assert path is not None
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            assert node.module is not None
            yield from [node.module] * (".parts." in node.module)
            yield from _parts(node.module)
