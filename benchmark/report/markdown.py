"""The report as one markdown page: the answer, the verdicts, then a section for each question."""

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.formats import Column
from benchmark.report.frames import Row, rows
from benchmark.report.prose import answer, controls_of_all, n_seeds
from benchmark.report.sections import APPENDIX, SECTIONS
from benchmark.report.statistics import MIN_SEEDS, MIN_SEEDS_SIGNIFICANT, in_words
from benchmark.report.warnings import tripwires

AMENDED = "\N{DOUBLE DAGGER}"
SHOWN_FIRST = ("method", f"minus {SCRATCH}", f"minus {BEST_FIXED}", "verdict",
               f"speed-up over {SCRATCH}")  # fmt: skip
"""Columns of the verdict table that a markdown page starts with; further tables have the rest."""


def page(analysis: Analysis) -> str:
    """The text of `report.md`."""
    suite = analysis.frames.suite
    verdicts = [{k: row[k] for k in SHOWN_FIRST if k in row} for row in verdict_rows(analysis)]
    parts = [
        f"# {suite.name} {suite.version}: {suite.purpose}",
        f"> **{suite.watermark.upper()}**" if suite.watermark else "",
        answer(analysis),
        analysis.note,
        *tripwires(analysis),
        "![Difference of every method to its controls](figures/differences.png)",
        formats.table(verdicts, groups=list(analysis.tables["summary"].group)),
        "Bits per byte (bpb) of the test split; on enwik8 the literature calls it bpc. The same to "
        "sort, filter and zoom, with a card of every run: [report.html](report.html), which "
        "`growbench report` renders.",
        "## How to read this",
        reading(analysis),
    ]
    for title, section in (SECTIONS | APPENDIX).items():
        content = [part for part in section(analysis) if part]
        parts += [f"## {title}", *content] if content else []
    return "\n\n".join(filter(None, parts)) + "\n"


def verdict_rows(analysis: Analysis) -> list[dict[str, str]]:
    """The verdict table as text, in the order of the summary.

    One row per method; below the methods the controls, then the other fixed sizes. A comparison
    that every row has twice, or that none has, gets no column.
    """
    summary = rows(analysis.tables["summary"])
    columns: dict[str, Column] = {
        "method": ("", _name),
        f"minus {SCRATCH}": ("", lambda row: _gap(row, SCRATCH)),
        "verdict": ("", _verdict),
    }
    if analysis.controls.best_fixed != SCRATCH:
        columns |= {f"minus {BEST_FIXED}": ("", lambda row: _gap(row, BEST_FIXED))}
    columns |= {"test bpb": ("", formats.mean)}
    if any(row["vs_own_control"] for row in summary):
        columns |= {"minus own": ("", lambda row: _gap(row, "own"))}
    columns |= {
        f"speed-up over {SCRATCH}": ("", formats.speed_up),
        "n": ("n", str),
        "what grows, when": ("grows", str),
        "role": ("role", str),
        "status": ("status", str),
    }
    return formats.cells(summary, columns)


def reading(analysis: Analysis) -> str:
    """Definitions a reader needs, with this suite's numbers in them."""
    n, fixed = n_seeds(analysis), analysis.controls
    tests = int((analysis.tables["comparisons"].role == "method").sum())
    return f"""\
- **minus {SCRATCH}**: difference in test bpb, paired by seed; negative is better. Brackets are 95 %
  intervals over seeds, from {MIN_SEEDS} seeds on, by a moderated t: with so few seeds a row's own
  variance is mostly luck, so it is shrunk towards what all rows have in common (Smyth 2004).
- **{BEST_FIXED}**: the fixed size that does best at the whole budget on the *validation* split,
  here {formats.code(fixed.best_fixed or "none")}, among {formats.code(*fixed.fixed)}.
- **speed-up over {SCRATCH}**: its compute over the method's, to the loss that {SCRATCH} of the same
  seed ends with, where every seed got there; never extrapolated. It leans low, as the method is
  read where its curve, not annealed yet, crosses that loss; below, both ends are annealed.
- **Verdict**: *better* is an interval below zero against {controls_of_all(analysis)},
  and against every control that the method names as its own; *worse* one above zero against any;
  otherwise there is *no evidence*.
- **No verdict** stands for *better* where a seed of the method or of a control has no finite
  score, where a control of its own is missing or a tuned method's control was not tuned, or where
  no run of the source's size was trained alone at C*: none of these could make the verdict better.
- **Significant** is said from {MIN_SEEDS_SIGNIFICANT} seeds on, if the exact sign-flip test passes
  Holm's correction over all {formats.plural(tests, "test")}; with {formats.plural(n, "seed")} no
  p-value can be below {formats.number(min(1.0, 2 / 2**n))}. Other words are *unadjusted*.
- **Ranks do not compare operators.** Methods stand in groups that grow the same sizes at the same
  time; between groups, what and when to grow differ as well, and so may the cost per token.
- **Tuned** methods (`-tuned`) meet tuned controls: of a control's default and tuned runs, the one
  that does better on the validation split.
- **A run that failed** (diverged, out of memory, timeout) has an infinite loss. A run without a
  result is left out of means.
- **FLOPs** are charged by formula, with causal attention and everything a method causes;
  evaluation is free. Time is wall-clock on this hardware, and secondary."""


def _name(row: Row) -> str:
    mark = f" {AMENDED} {row['amended']}" if row["amended"] else ""
    return f"`{row['method']}`" + f" (= {BEST_FIXED})" * row["is_best_fixed"] + mark


def _verdict(row: Row) -> str:
    word = in_words(row["verdict"], row["n"], row["worse_than"])
    word = f"**{word}**" if word else ""
    return word if row["status"] == "done" else f"{word} {row['status']}".strip()


def _gap(row: Row, control: str) -> str:
    name = f"vs_{control}"
    stated = row[f"{name}_control"]
    is_usual = control == BEST_FIXED or stated in ("", control)
    return formats.gap(row, name) + ("" if is_usual else f" (`{stated}`)")
