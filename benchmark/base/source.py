"""Source text without what has no effect, so that describing a file anew does not change it.

Bare strings (docstrings), comments, blank lines and trailing spaces go. So does the place that code
of one's own is imported from, as files move; the names that imports bind stay, sorted. What is left
is cut from the text at positions that `ast` gives, hence the same under every release of Python
that parses it; what `ast.dump` and `ast.unparse` return is not.
"""

import ast
import re
from collections.abc import Callable, Iterator
from importlib.util import decode_source

_COMMENT = re.compile(rb"#[^\n]*")


def normalised(source: bytes, is_own: Callable[[str], bool]) -> bytes:
    """The part of a module's source that determines what it does.

    Args:
        source: of the module, as it is in its file.
        is_own: whether a module, named in an absolute import, is code that may move.

    Raises:
        SyntaxError: it is no Python.
    """
    text = decode_source(source)
    raw, tree = text.encode(), ast.parse(text)
    starts = [0]
    for line in raw.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    code, names, at = [], set[str](), 0
    for node in sorted(_cuts(tree), key=lambda node: (node.lineno, node.col_offset)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        code.append(_COMMENT.sub(b"", raw[at:start]))
        if isinstance(node, ast.expr):
            code.append(raw[start:end].replace(b"\n", b"\0"))  # its lines are no lines of code
        names.update(_bound(node, is_own))
        at = end
    code.append(_COMMENT.sub(b"", raw[at:]))
    lines = (line.rstrip() for line in b"".join(code).split(b"\n"))
    return b"\n".join([*(name.encode() for name in sorted(names)), *filter(None, lines)])


def _cuts(node: ast.AST) -> Iterator[ast.stmt | ast.expr]:
    """All imports, bare strings and other strings."""
    for child in ast.iter_child_nodes(node):
        match child:
            case (
                ast.Import()
                | ast.ImportFrom()
                | ast.Expr(value=ast.Constant(value=str()))
                | ast.Constant(value=str() | bytes())
                | ast.JoinedStr()
            ):
                yield child
            case _:
                yield from _cuts(child)


def _bound(node: ast.AST, is_own: Callable[[str], bool]) -> Iterator[str]:
    """What an import binds: the name, and where it is from unless that is code of one's own."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            own = alias.asname is not None and is_own(alias.name)
            yield f"{'' if own else alias.name} as {alias.asname}"
    elif isinstance(node, ast.ImportFrom):
        own = node.level > 0 or is_own(node.module or "")
        for alias in node.names:
            yield f"{'' if own else node.module}:{alias.name} as {alias.asname}"
