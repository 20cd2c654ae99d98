"""Numbers and tables as a reader wants them, in one format each; nan is a dash."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

DASH = "\N{EM DASH}"
INFINITY = "\N{INFINITY}"
SAME = 0.01
"""Relative difference within which a fraction of C* is called by its name."""

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_DURATIONS = ((3600.0, "h"), (60.0, "min"))


def bpb(value: float) -> str:
    """2.6900."""
    return _special(value) or f"{value:.4f}"


def difference(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """-0.0780 [-0.0912, -0.0648]; the interval only if there is one."""
    return _special(value) or f"{_signed(value)}{_interval(low, high, _signed)}"


def gap(row: Mapping[str, Any], name: str = "difference") -> str:
    """The `difference` of a row of a table with its interval, of another column if named."""
    prefix = "" if name == "difference" else f"{name}_"
    return difference(row[name], row[f"{prefix}low"], row[f"{prefix}high"])


def limits(low: float, high: float) -> str:
    """[-0.0912, -0.0648]."""
    return _interval(low, high, _signed).strip() or DASH


def mean(row: Mapping[str, Any]) -> str:
    """Mean test bpb with its interval from three values on; the values themselves before that."""
    if row["n"] == 2 and math.isfinite(row["test_bpb"]):  # noqa: PLR2004
        return f"{row['test_bpb_min']:.4f} and {row['test_bpb_max']:.4f}"
    return within(row, "test_bpb", bpb)


def speed_up(row: Mapping[str, Any]) -> str:
    """1.30x [1.21, 1.39]; where a seed did not reach the loss, how many did."""
    n, n_reached = row["speed_up_n"], row["n_reached"]
    if n_reached < n:
        return f"{n_reached:.0f} of {n:.0f} reached it"
    return times(row["speed_up"]) + _interval(
        row["speed_up_low"], row["speed_up_high"], "{:.2f}".format
    )


def times(value: float) -> str:
    """1.30x; nan is a dash, infinity a loss that was never reached."""
    return DASH if math.isnan(value) else f"{value:.2f}x" if value < math.inf else "not reached"


def within(row: Mapping[str, Any], name: str, show: Callable[[float], str]) -> str:
    """A value of a row, with its interval if there is one."""
    return show(row[name]) + _interval(row[f"{name}_low"], row[f"{name}_high"], show)


def flops(value: float) -> str:
    """2.00e12."""
    return _special(value) or ("0" if value == 0 else f"{value:.2e}".replace("e+", "e"))


def count(value: float) -> str:
    """1.23 M."""
    return _special(value) or _scaled(value, _UNITS, ".3g") or f"{value:.0f}"


def memory(value: float) -> str:
    """1.25 GiB."""
    return _special(value) or f"{value / 2**30:.3g} GiB"


def seconds(value: float) -> str:
    """0.3 s, 41 s, 2.5 min, 3.1 h."""
    return _special(value) or _scaled(value, _DURATIONS, ".1f") or f"{value:.2g} s"


def percent(value: float) -> str:
    """25.0 %."""
    return _special(value) or f"{100 * value:.1f} %"


def number(value: float) -> str:
    """Three significant digits."""
    return _special(value) or f"{value:.3g}"


def fraction(value: float) -> str:
    """C*, C*/4, 0.3 C*."""
    parts = round(1 / value)
    if abs(parts * value - 1) > SAME:
        return f"{number(value)} C*"
    return "C*" if parts == 1 else f"C*/{parts}"


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def changed(small: Mapping[str, int], large: Mapping[str, int]) -> str:
    """n_layer 1 to 2, d_ff 64 to 128."""
    sizes = ((key, small.get(key), large[key]) for key in large)
    return ", ".join(f"{key} {a} to {b}" for key, a, b in sizes if a != b)


def plural(n: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def code(*names: object) -> str:
    """`a`, `b` and `c`."""
    return listed([f"`{name}`" for name in names])


Column = tuple[str, Callable[[Any], str]]
"""Name of what a column of a table shows, "" for the whole row, and how it is shown."""

Columns = Mapping[str, Column]
"""By heading."""


def cells(rows: Iterable[Mapping[str, Any]], columns: Columns) -> list[dict[str, str]]:
    """Rows of a table as text, by heading."""
    return [
        {heading: show(row[key] if key else row) for heading, (key, show) in columns.items()}
        for row in rows
    ]


def table(
    rows: Sequence[Mapping[str, str]], alignment: str = "right", groups: Sequence[str] = ()
) -> str:
    """A markdown table; the first column is text, `alignment` is that of the others.

    Args:
        rows: cells by heading.
        alignment: "left" or "right".
        groups: the group of each row; consecutive rows of one are under a row with its name.
    """
    if not rows:
        return "None."
    text = [[" ".join(cell.replace("|", r"\|").split()) for cell in row.values()] for row in rows]
    align = ["left", *[alignment] * (len(rows[0]) - 1)]
    # as headers, the headings would be padded by two letters more
    given = [list(rows[0]), *text]
    rule, head, *lines = tabulate(
        given, tablefmt="pipe", disable_numparse=True, colalign=align
    ).splitlines()
    for i in reversed(range(len(groups))):
        if i == 0 or groups[i] != groups[i - 1]:
            lines.insert(i, f"| **{groups[i]}** |{' |' * (len(align) - 1)}")
    return "\n".join([head, rule, *lines])


def _special(value: float) -> str:
    if math.isnan(value):
        return DASH
    return "" if math.isfinite(value) else (INFINITY if value > 0 else f"-{INFINITY}")


def _scaled(value: float, units: Iterable[tuple[float, str]], digits: str) -> str:
    """In the largest unit that it has one of; empty if there is none."""
    return next((f"{value / size:{digits}} {name}" for size, name in units if value >= size), "")


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # a zero is +0.0000


def _interval(low: float, high: float, show: Callable[[float], str]) -> str:
    """What follows a value that has an interval."""
    return "" if math.isnan(low) else f" [{show(low)}, {show(high)}]"
