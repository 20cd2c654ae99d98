"""While a stage runs, only the harness opens the corpus.

Python asks an audit hook before it opens a file. The text of a corpus holds the held-out splits, so
code that is neither the harness's nor a library's is refused it, in the middle of the run. As with
the contract's watch, code that is not Python's is not seen.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmark.base.errors import DataError
from benchmark.data.corpora import CorpusConfig

TRUSTED = frozenset({"benchmark", "numpy", "torch", "pytorch_lightning", "lightning_fabric"})
ENTRANCES = frozenset(
    {("benchmark.stage.execute", "execute"), ("benchmark.stage.execute", "_on_rank")}
)
"""Module and function in which a stage begins; whoever calls it does not matter."""

_closed: str | None = None
_is_hooked = False


@contextmanager
def corpus_closed(corpus: CorpusConfig, cache: Path) -> Iterator[None]:
    """Refuse the text of a corpus to foreign code inside the block."""
    global _closed, _is_hooked  # noqa: PLW0603 - a hook cannot be removed, only told to rest
    if not _is_hooked:
        sys.addaudithook(_hook)
        _is_hooked = True
    _closed = os.path.realpath(corpus.path or cache / "corpora")
    try:
        yield
    finally:
        _closed = None


def _hook(event: str, args: tuple[object, ...]) -> None:
    if event != "open" or _closed is None or not isinstance(args[0], str | bytes | os.PathLike):
        return
    path = os.path.realpath(os.fsdecode(args[0]))
    is_closed = path == _closed or path.startswith(_closed + os.sep)
    if is_closed and (foreign := _foreign(sys._getframe(1))):
        raise DataError(
            f"{foreign} opens the corpus, {Path(path).name}: a method is given training batches "
            "only"
        )


def _foreign(frame: FrameType | None) -> str:
    """The module, neither the harness's nor a library's, that has a part in this; or nothing."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if (module, frame.f_code.co_name) in ENTRANCES:
            return ""
        top = module.partition(".")[0]
        if top not in TRUSTED and top not in sys.stdlib_module_names:
            return module
        frame = frame.f_back
    return ""
