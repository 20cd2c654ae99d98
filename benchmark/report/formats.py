"""Numbers as a reader wants them, in one format each; nan is a dash."""

import math
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from benchmark.report.statistics import MIN_SEEDS_SIGNIFICANT

DASH = "\N{EM DASH}"
INFINITY = "\N{INFINITY}"
UNANNEALED = "\N{DAGGER}"
"""Beside a loss read before the learning rate has decayed."""

SAME = 0.01
"""Relative difference within which a fraction of C* is called by its name."""

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_DURATIONS = ((3600.0, "h"), (60.0, "min"))


def bpb(value: float) -> str:
    """2.6900."""
    return _special(value) or f"{value:.4f}"


def difference(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """-0.0780 [-0.0912, -0.0648]; the interval only if there is one."""
    interval = "" if math.isnan(low) else f" {limits(low, high)}"
    return _special(value) or f"{_unsigned_zero(value):+.4f}{interval}"


def gap(row: Mapping[str, float], prefix: str = "") -> str:
    """The `difference` of a row of a table with its interval."""
    return difference(*(row[f"{prefix}{name}"] for name in ("difference", "low", "high")))


def limits(low: float, high: float) -> str:
    """[-0.0912, -0.0648]."""
    return DASH if math.isnan(low) else f"[{_unsigned_zero(low):+.4f}, {_unsigned_zero(high):+.4f}]"


def mean(row: Mapping[str, float], name: str, n: int) -> str:
    """A mean with its interval from three values on; the values themselves before that."""
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if _special(value) or n == 1:
        return bpb(value)
    if n == 2:  # noqa: PLR2004
        return f"{row[f'{name}_min']:.4f} and {row[f'{name}_max']:.4f}"
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


def speed_up(row: Mapping[str, float]) -> str:
    """1.30x [1.21, 1.39]; where a seed did not reach the loss, 2 of 3 seeds reached it."""
    value, n, n_reached = row["speed_up"], row["n"], row["n_reached"]
    if math.isnan(n_reached):
        return DASH
    if n_reached < n:
        return f"not reached ({n_reached:.0f} of {n:.0f} did)"
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{value:.2f}x{interval}"


def verdict(word: str, n: int) -> str:
    """A verdict, with what a reader has to know of one from so few seeds."""
    is_unadjusted = word in ("better", "worse") and n < MIN_SEEDS_SIGNIFICANT
    return f"{word} (n = {n}, unadjusted)" if is_unadjusted else word


def flops(value: float) -> str:
    """2.00e12."""
    return _special(value) or ("0" if value == 0 else f"{value:.2e}".replace("e+", "e"))


def count(value: float) -> str:
    """1.23 M."""
    if special := _special(value):
        return special
    for unit, letter in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.0f}"


def memory(value: float) -> str:
    """1.25 GiB."""
    return _special(value) or f"{value / 2**30:.3g} GiB"


def seconds(value: float) -> str:
    """0.3 s, 41 s, 2.5 min, 3.1 h."""
    if special := _special(value):
        return special
    for unit, name in _DURATIONS:
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.2g} s"


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


def plural(n: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def table(rows: Sequence[dict[str, str]], alignment: str = "right") -> str:
    """A markdown table; the first column is text, `alignment` is that of the others."""
    if not rows:
        return "None."
    cells = [[" ".join(c.replace("|", r"\|").split()) for c in row.values()] for row in rows]
    columns = ["left", *[alignment] * (len(rows[0]) - 1)]
    headers = list(rows[0])
    return tabulate(cells, headers, tablefmt="pipe", disable_numparse=True, colalign=columns)


def figure(name: str, caption: str) -> str:
    """A figure, as the page shows it."""
    return f"![{caption}](figures/{name}.png)"


def _special(value: float) -> str:
    if math.isnan(value):
        return DASH
    return "" if math.isfinite(value) else (INFINITY if value > 0 else f"-{INFINITY}")


def _unsigned_zero(value: float) -> float:
    return round(value, 4) + 0.0
