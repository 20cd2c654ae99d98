"""The report as one markdown page: the answer, the verdicts, then a section for each question."""

from benchmark.report import appendix, formats, sections
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.frames import Row, rows
from benchmark.report.prose import answer, code, controls_of_all, n_seeds
from benchmark.report.statistics import MIN_SEEDS, MIN_SEEDS_SIGNIFICANT
from benchmark.report.warnings import tripwires

AMENDED = "\N{DOUBLE DAGGER}"


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
        formats.table(verdict_rows(analysis)),
        formats.figure(*sections.lead(analysis)),
        "The same to sort, filter and zoom, with a card of every run: "
        "[report.html](report.html), which `growbench report` renders.",
        "## How to read this",
        reading(analysis),
    ]
    for title, section in (sections.SECTIONS | appendix.SECTIONS).items():
        content = [part for part in section(analysis) if part]
        parts += [f"## {title}", *content] if content else []
    return "\n\n".join(filter(None, parts)) + "\n"


def verdict_rows(analysis: Analysis) -> list[dict[str, str]]:
    """The verdict table as text, in the order of the summary.

    One row per method; below the methods the controls, then the other fixed sizes. A comparison
    that every row has twice, or that none has, gets no column.
    """
    summary = rows(analysis.tables["summary"])
    against = [SCRATCH]
    against += [BEST_FIXED] if analysis.controls.best_fixed != SCRATCH else []
    against += ["own"] if any(row["vs_own_control"] for row in summary) else []
    return [_verdict_row(row, against) for row in summary]


def reading(analysis: Analysis) -> str:
    """Definitions a reader needs, with this suite's numbers in them."""
    n, fixed = n_seeds(analysis), analysis.controls
    tests = int((analysis.tables["comparisons"].role == "method").sum())
    return f"""\
- **Differences** are paired by seed, method minus control on the test split: negative is better.
  Brackets are 95 % intervals over seeds, from {MIN_SEEDS} seeds on, by a moderated t: the variance
  of each row is shrunk towards what all rows have in common (Smyth 2004), since that of so few
  seeds is mostly luck. Those of a mean bpb are Student's.
- **Ranks do not compare operators.** Methods stand in groups that grow the same sizes at the same
  time; between groups, what and when to grow differ as well, and so may the cost per token.
- **{BEST_FIXED}** is the fixed size that does best at the whole budget on the *validation* split,
  here {code([fixed.best_fixed or "none"])}, among {code(fixed.fixed)}.
- **Verdict**: *better* needs an interval below zero against {controls_of_all(analysis)}, and
  against every control that the method names as its own (*minus own*: the least favourable of
  them); *worse* is an interval above zero against any; otherwise there is *no evidence*. Intervals
  are not adjusted for {formats.plural(len(analysis.words), "method")}.
- **No verdict** stands for *better* where a seed of the method or of a control has no finite
  score, where a control of its own is missing or a tuned method's control was not tuned, or where
  no run of the source's size was trained alone at C*: none of these could make the verdict better.
- **Tuned** methods (`-tuned`) meet tuned controls: of a control's default and tuned runs, the one
  that does better on the validation split.
- **Significant** is said from {MIN_SEEDS_SIGNIFICANT} seeds on, if the exact sign-flip test passes
  Holm's correction over the whole table, one family of {formats.plural(tests, "test")}; with
  {formats.plural(n, "seed")} no p-value can be below {formats.number(min(1.0, 2 / 2**n))}.
- **A run that failed** (diverged, out of memory, timeout) has an infinite loss and an infinite
  cost. A run without a result is left out of means; in a speed-up both count as *not reached*.
- **Speed-up**: compute of {SCRATCH} over that of the method to reach the loss that {SCRATCH} ends
  with; a mean over seeds, given where all of them reached it.
- **FLOPs** are charged by formula, with causal attention and everything a method causes;
  evaluation is free. Time is wall-clock on this hardware, and secondary.
- Every row of a CSV in `tables/` carries its run ids or methods and seeds; *Runs* lists all ids."""


def _verdict_row(row: Row, against: list[str]) -> dict[str, str]:
    faster = {name: row[f"speed_up_{name}"] for name in ("n", "low", "high")}
    faster |= {name: row[name] for name in ("speed_up", "n_reached")}
    mark = f" {AMENDED} {row['amended']}" if row["amended"] else ""
    return {
        "method": f"`{row['method']}`" + f" (= {BEST_FIXED})" * row["is_best_fixed"] + mark,
        **{f"minus {control}": _gap(row, control) for control in against if control != "own"},
        "own share": formats.percent(row[f"vs_{SCRATCH}_own_share"]),
        "verdict": f"**{formats.verdict(row['verdict'], row['n'])}**" if row["verdict"] else "",
        "test bpb": formats.mean(row, "test_bpb", row["n"]),
        **{f"minus {control}": _gap(row, control) for control in against if control == "own"},
        f"speed-up over {SCRATCH}": formats.speed_up(faster),
        "n": str(row["n"]),
        "what grows, when": row["grows"],
        "role": row["role"],
        "status": row["status"],
    }


def _gap(row: Row, control: str) -> str:
    name = f"vs_{control}"
    gap = formats.difference(row[name], row[f"{name}_low"], row[f"{name}_high"])
    stated = row[f"{name}_control"]
    is_usual = control == BEST_FIXED or stated in ("", control)
    return gap if is_usual else f"{gap} (`{stated}`)"
