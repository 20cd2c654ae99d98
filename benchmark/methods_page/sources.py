"""What the module of a method says of itself.

The docstring of a module in configs/method has three parts, in this order: what the method is; the
code it was compared with, each as "OWNER/REPOSITORY, commit HASH", or the words "No official code";
and, as the last paragraph, "Deviations: ...", or "Deviations from WHAT: ...".
"""

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.base.errors import ConfigError

_CODE = re.compile(r"([\w.-]+/[\w.-]+),\s+commit\s+([0-9a-f]{7,40})\b")
_NO_CODE = re.compile(r"\bNo\s+official\s+code\b")
_DEVIATIONS = re.compile(r"^Deviations\b[^:]*:", re.MULTILINE)
_NO_STATEMENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


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

    lines: int
    """Lines of code: neither blank nor comment nor docstring."""

    parts: tuple[tuple[str, int], ...]
    """Modules of the same package that it is made from, and their lines of code."""


def source(module: str) -> Source:
    """Read a module.

    Raises:
        ConfigError: its docstring names no code, or does not end with the deviations.
    """
    docstring = _docstring(module)
    text, deviations = _split(docstring, module)
    code = tuple(dict.fromkeys(_CODE.findall(docstring)))
    is_official = not _NO_CODE.search(docstring)
    if is_official and not code:
        raise ConfigError(
            f"{module}: the docstring must cite code as 'OWNER/REPOSITORY, commit HASH', or say "
            "'No official code'"
        )
    parts = sorted(set(_parts(module)) - {module})
    return Source(
        name=module,
        text=text,
        deviations=((module, deviations), *_deviations(parts)),
        code=code,
        is_official=is_official,
        lines=_lines(module),
        parts=tuple((part, _lines(part)) for part in parts),
    )


def _split(docstring: str, module: str) -> tuple[str, str]:
    *paragraphs, last = docstring.split("\n\n")
    if not _DEVIATIONS.match(last) or _DEVIATIONS.search("\n\n".join(paragraphs)):
        raise ConfigError(
            f"{module}: the last paragraph of the docstring, and only that, must begin with "
            f"'Deviations: ' or 'Deviations from WHAT: '; it begins with {last[:40]!r}"
        )
    return "\n\n".join(paragraphs), last


def _deviations(parts: list[str]) -> Iterator[tuple[str, str]]:
    """Deviations that belong to the parts and not to methods with a section of their own."""
    for part in parts:
        *_, last = _docstring(part).split("\n\n")
        if _DEVIATIONS.match(last) and ".parts." in part:
            yield part, last


def _docstring(module: str) -> str:
    return inspect.getdoc(importlib.import_module(module)) or ""


def _parts(module: str) -> Iterator[str]:
    """The modules of the same package that one imports, directly or not."""
    package = module.partition(".")[0]
    for node in ast.walk(ast.parse(_read(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            assert node.module is not None
            yield node.module
            yield from _parts(node.module)


def _lines(module: str) -> int:
    text = _read(module)
    statements = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    documentation = {
        line
        for node in statements
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {
        line
        for token in tokens
        if token.type not in _NO_STATEMENT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - documentation)


def _read(module: str) -> str:
    path = importlib.import_module(module).__file__
    assert path is not None
    return Path(path).read_text(encoding="utf-8")
