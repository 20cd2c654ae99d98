"""The report as one markdown page: the answer, the verdicts, then a section for each question."""

from benchmark.report import appendix, formats, sections
from benchmark.report.analysis import Analysis
from benchmark.report.frames import Row, rows
from benchmark.report.prose import answer, code, tripwires
from benchmark.report.verdicts import BEST_FIXED, SCRATCH
from benchmark.statistics import MIN_SEEDS, MIN_SEEDS_SIGNIFICANT


def page(analysis: Analysis) -> str:
    """The text of `report.md`."""
    suite = analysis.frames.suite
    parts = [
        f"# {suite.name} {suite.version}: bits per byte (bpb; on enwik8 the literature calls it "
        "bpc)",
        f"> **{suite.watermark.upper()}**" if suite.watermark else "",
        suite.purpose,
        answer(analysis),
        *tripwires(analysis),
        verdict_table(analysis),
        sections.figure("curves_flops", "Loss against training compute"),
        "## How to read this",
        reading(analysis),
    ]
    for title, section in (sections.SECTIONS | appendix.SECTIONS).items():
        parts += [f"## {title}", *section(analysis)]
    return "\n\n".join(filter(None, parts)) + "\n"


def verdict_table(analysis: Analysis) -> str:
    """One row per method; below the methods the controls, then the other fixed sizes."""
    return formats.table([_verdict_row(row) for row in rows(analysis.tables["summary"])])


def reading(analysis: Analysis) -> str:
    """Definitions a reader needs, with this suite's numbers in them."""
    n = int(analysis.frames.runs.n_seeds.max())
    fixed = analysis.controls
    return f"""\
- **Differences** are paired by seed, method minus control on the test split: negative is better.
  Brackets are 95 % Student-t intervals over seeds, from {MIN_SEEDS} seeds on.
- **{BEST_FIXED}** is the fixed size that does best at the whole budget on the *validation* split,
  here {code([fixed.best_fixed or "none"])}, among {code(fixed.fixed)}.
- **Verdict**: *better* needs an interval below zero against {SCRATCH} *and* against {BEST_FIXED};
  *worse* is an interval above zero against either; otherwise there is *no evidence*. Intervals are
  not adjusted for {formats.plural(len(analysis.words), "method")}.
- **Significant** is said from {MIN_SEEDS_SIGNIFICANT} seeds on, if the exact sign-flip test passes
  Holm's correction; with {formats.plural(n, "seed")} its p-value cannot be below
  {formats.number(min(1.0, 2 / 2**n))}.
- **A run that failed** has an infinite loss. A run without a result is left out of means; in a
  speed-up both count as *not reached*.
- **FLOPs** are charged by formula, with causal attention and everything a method causes;
  evaluation is free. Time is wall-clock on this hardware, and secondary."""


def _verdict_row(row: Row) -> dict[str, str]:
    faster = {name: row[f"speed_up_{name}"] for name in ("n", "low", "high")}
    faster |= {name: row[name] for name in ("speed_up", "n_reached")}
    return {
        "method": f"`{row['method']}`" + f" (= {BEST_FIXED})" * row["is_best_fixed"],
        "role": row["role"],
        "test bpb": formats.mean(row, "test_bpb", row["n"]),
        "n": str(row["n"]),
        f"minus {SCRATCH}": _gap(row, SCRATCH),
        f"minus {BEST_FIXED}": _gap(row, BEST_FIXED),
        "verdict": f"**{row['verdict']}**" if row["verdict"] else "",
        f"speed-up over {SCRATCH}": formats.speed_up(faster),
        "parameters": formats.count(row["n_params"]),
        "FLOPs": formats.flops(row["flops"]),
        "tokens": formats.count(row["tokens"]),
        "epochs": formats.number(row["epochs"]) + " (!)" * (row["epochs"] > 1),
        "time": formats.seconds(row["seconds"]),
        "status": row["status"],
    }


def _gap(row: Row, control: str) -> str:
    name = f"vs_{control}"
    return formats.difference(row[name], row[f"{name}_low"], row[f"{name}_high"])
