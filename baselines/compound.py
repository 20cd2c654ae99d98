"""Any mix of operators, put together in YAML: no code needed for a new combination.

Sizes may move together, one after the other or in turns, linearly, exponentially or by any
importable function of progress: that is the ladder's choice, not the method's.

After growth: old entries keep their moments, new ones start from zero, and the rate stays, unless
the configuration says otherwise.

No official code: this is nobody's published method.

Deviations: none.
"""

import copy
import importlib
from typing import Any

from benchmark.base.errors import ConfigError
from benchmark.baseline import Baseline
from benchmark.growth import GrowthOperator


class Compound(Baseline):
    """Grow by the listed operators, in order.

    Args:
        operators: each {"target": "package.module:Class", "args": {...}, "sizes": [...]}; `sizes`
            leaves an operator only some of those it could grow.
    """

    def __init__(self, operators: list[dict[str, Any]]) -> None:
        super().__init__()
        self.operators = tuple(_operator(**entry) for entry in operators)


def _operator(
    target: str, args: dict[str, Any] | None = None, sizes: list[str] | None = None
) -> GrowthOperator:
    module, _, name = target.partition(":")
    try:
        operator = getattr(importlib.import_module(module), name)(**(args or {}))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot build operator {target!r}: {error}") from error
    if not isinstance(operator, GrowthOperator):
        raise ConfigError(f"{target} is not a growth operator")
    if sizes is None:
        return operator
    if not operator.grows.issuperset(sizes):
        raise ConfigError(f"{target} grows {sorted(operator.grows)}, not all of {sizes}")
    narrowed = copy.copy(operator)
    object.__setattr__(narrowed, "grows", frozenset(sizes))
    return narrowed


def late(progress: float) -> float:
    """A path of one's own: little at first, most of the way in the last growths."""
    return progress**2
