"""The findings: results/README.md and its pictures, made from the published folders of a study.

A suite that is not there yet gets a line that says so. Rows link to the runs that they are made
of; the numbers of every picture, with their run ids, lie beside it as CSV.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmark.records.events import ABSENT
from benchmark.records.folder import load_suite
from benchmark.report import formats
from benchmark.report.analysis import Analysis, analyse_folder
from benchmark.report.controls import BEST_FIXED, SCRATCH
from benchmark.report.drawing import Drawing
from benchmark.report.formats import Columns
from benchmark.report.frames import Row, rows
from benchmark.report.plots import image, main_effects, styled
from benchmark.report.prose import n_seeds, what_matters
from benchmark.report.sections import COUNTED, by_convention
from benchmark.report.statistics import in_words
from tools.study import mixes, pictures, regime, repeats, rounding, trend

PAGE = "README.md"
HEADLINE = ("tokenformer", "cpu")
"""Suites that the answer is from: the first that is there."""

TUNED = "tokenformer_tuned"
LADDER = ("ladder_1", "ladder_2", "tokenformer", "ladder_4")
REGIME = ("regime_quarter", "regime_optimal", "regime_fourfold")
AGAIN = "_again"
"""Ending of the folder of a suite that was trained a second time, on other kernels."""

QUESTION = "tokenformer"
"""The method that the study began with, and the first word of its variants."""


@dataclass
class Study:
    """Published results of several suites, and the pictures that a page has of them."""

    results: Path
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    _is_there: dict[str, bool] = field(default_factory=dict[str, bool])
    _read: dict[str, Analysis] = field(default_factory=dict[str, Analysis])

    def has(self, name: str) -> bool:
        """Whether a suite is there, all of it."""
        if name not in self._is_there:
            folder = self.results / name
            self._is_there[name] = (folder / "suite.yaml").is_file() and not any(
                run.status in ABSENT for run in load_suite(folder).runs
            )
        return self._is_there[name]

    @property
    def answers(self) -> str | None:
        """The suite that the answer is from, if one is there."""
        return next((name for name in HEADLINE if self.has(name)), None)

    def get(self, name: str) -> Analysis:
        """A suite that is there."""
        if name not in self._read:
            self._read[name] = analyse_folder(self.results / name)
        return self._read[name]

    def planned(self, *names: str) -> str:
        """Which of these suites are not there yet, in a line; empty if all are."""
        absent = [f"`{name}`" for name in names if not self.has(name)]
        if not absent:
            return ""
        which = f"Suite {absent[0]} is" if len(absent) == 1 else f"Suites {_and(absent)} are"
        return f"{which} planned, not trained yet."

    def picture(
        self, name: str, alt: str, table: pd.DataFrame, draw: Callable[..., Figure], *args: object
    ) -> str:
        """A picture and the numbers that it shows, as the page names them."""
        with styled():
            self.files[f"figures/{name}.png"] = image(draw(*(args or (table,))))
        content = table.to_csv(index=False, lineterminator="\n", float_format="%.9g")
        self.files[f"figures/{name}.csv"] = content.encode()
        shown = f"![{alt}](figures/{name}.png)"
        return f"{shown}\n\nNumbers and run ids: [{name}.csv](figures/{name}.csv)."


def findings(study: Study) -> dict[str, bytes]:
    """Names and bytes of the findings, beside the results: a pure function of published folders.

    Raises:
        RecordError: the records of a suite are damaged or contradict one another.
    """
    parts = ["# Findings", headline(study), "## What this cannot say", "\n".join(limits(study))]
    for title, section in SECTIONS.items():
        parts += [f"## {title}", *section(study)]
    text = "\n\n".join(filter(None, parts)) + "\n"
    return {PAGE: text.encode(), **study.files}


def headline(study: Study, at: str = "") -> str:
    """What the study says of its question, in three sentences.

    Args:
        study: the published suites.
        at: where they lie, seen from the page that says it.
    """
    if (name := study.answers) is None:
        return study.planned(HEADLINE[0])
    analysis = study.get(name)
    methods = [row for row in rows(analysis.tables["summary"]) if row["role"] == "method"]
    variants = [row for row in methods if row["method"].startswith(QUESTION)]
    others = [row for row in methods if row not in variants]
    parts = [
        _of_question(variants, analysis),
        _tuned(study),
        _of_others(others, analysis),
        _scope(analysis, at),
    ]
    until = (
        f"{study.planned(HEADLINE[0])} Until then an older one, in which TokenFormer and others "
        f"were not at their best ([why]({at}LOG.md)), says:"
    )
    return " ".join(filter(None, [*([] if name == HEADLINE[0] else [until]), *parts]))


def _of_question(variants: Sequence[Row], analysis: Analysis) -> str:
    released = [row for row in variants if row["method"] == QUESTION]
    if not released:
        return ""
    best = min(variants, key=lambda row: analysis.frames.validation.get(row["method"], math.inf))
    text = f"At equal compute TokenFormer ends {_said(released[0])}"
    if best is not released[0]:
        text += (
            f", and of its {len(variants)} variants the one that does best on validation "
            f"text of these runs, `{best['method']}`, {_said(best)}"
        )
    return f"**{text}.**"


def _tuned(study: Study) -> str:
    """What equal tuning makes of it, where that is published."""
    if not study.has(TUNED):
        return ""
    analysis = study.get(TUNED)
    tuned = [row for row in rows(analysis.tables["summary"])
             if row["method"].startswith(QUESTION) and row["method"].endswith("-tuned")
             and row["role"] == "method"]  # fmt: skip
    if not tuned:
        return ""
    best = min(tuned, key=lambda row: analysis.frames.validation.get(row["method"], math.inf))
    return f"Tuned by as many trials as its controls, `{best['method']}` ends {_said(best)}."


def _of_others(others: Sequence[Row], analysis: Analysis) -> str:
    if not others:
        return ""
    n_better = sum("better" in row["verdict"] for row in others)
    best = min(others, key=lambda row: float(row["test_bpb"]))
    is_or_are = "are" if n_better > 1 else "is"
    return (
        f"{n_better or 'None'} of the {len(others)} other methods that grow {is_or_are} shown to "
        "be better than both scratch and the best size that never grows "
        f"({'here' if analysis.controls.best_fixed == SCRATCH else 'here size'} "
        f"`{analysis.controls.best_fixed}`); the one that ends lowest, `{best['method']}`, ends "
        f"{_said(best)}."
    )


def _said(row: Row) -> str:
    gap = formats.gap(row, f"vs_{SCRATCH}")
    than = f" than {row['worse_than']}" if row["worse_than"] else ""
    return f"{gap} bits per byte from dense scratch ({row['verdict']}{than})"


def _scope(analysis: Analysis, at: str) -> str:
    frames = analysis.frames
    target = frames.of(SCRATCH).iloc[0]
    return (
        f"That holds for {formats.count(target.n_params)} parameters, "
        f"{formats.flops(frames.budget_flops)} training FLOPs, {target.train_bytes / 1e6:.1f} MB "
        f"of {target.corpus} text and {formats.plural(n_seeds(analysis), 'seed')}: suite "
        f"[{frames.suite.name}]({at}{frames.suite.name}/report.md). Do not conclude anything about "
        "larger models, other text or budgets, nor from ranks between methods that grow other "
        "sizes or at other times. Less is better; brackets are 95 % intervals over seeds."
    )


def limits(study: Study) -> list[str]:
    """What a reader should discount, from what was trained."""
    there = [study.get(name) for name in STUDY if study.has(name)]
    if not there:
        return ["- Nothing of the study is published yet."]
    sizes = [a.frames.of(SCRATCH).n_params.max() for a in there]
    budgets = [a.frames.budget_flops for a in there]
    corpora = sorted({str(a.frames.runs.corpus.dropna().iloc[0]) for a in there})
    optimizers = sorted({_optimizer(a) for a in there})
    detectable = [f"{formats.bpb(_detectable(a))} in `{a.frames.suite.name}`" for a in there
                  if math.isfinite(_detectable(a))]  # fmt: skip
    return [
        f"- **Size.** Targets of {formats.count(min(sizes))} to {formats.count(max(sizes))} "
        f"parameters, {formats.flops(min(budgets))} to {formats.flops(max(budgets))} FLOPs: a "
        "thousandth of the parameters, or less, and a millionth of the FLOPs, or far less, of what "
        "is trained in earnest. A ladder of budgets over a factor of 64 is planned to say how "
        "results move with scale; nothing here says what lies beyond it.",
        f"- **Bytes.** Models read bytes of {_and(corpora)}, in short windows (128); no "
        "tokenizer, no downstream task.",
        f"- **One optimizer.** {_and(optimizers)}, one peak rate for all and one schedule for all "
        "rows but those whose papers have their own (*own schedule* in each report). Other "
        "architectures may have another best rate.",
        "- **What was seen before.** Each suite's `plan.lock` says when it was planned and what "
        "was changed afterwards; [the log](LOG.md) has the trials that led to it.",
        f"- **What it could see.** Of true differences to scratch of this many bits per byte four "
        f"in five are found: {_and(detectable)}. Smaller ones may be there.",
    ]


def _detectable(analysis: Analysis) -> float:
    table = analysis.tables["comparisons"]
    return float(table.detectable[(table.role == "method") & (table.control == SCRATCH)].median())


def _optimizer(analysis: Analysis) -> str:
    found: Any = analysis.frames.config["protocol"].get("optimizer", {})
    return str(found.get("target") or "AdamW").rpartition(":")[2]


def of_tokenformer(study: Study) -> list[str]:
    """The question on two kinds of text, and what the paper's figures show."""
    parts = []
    for name in OF_TOKENFORMER:
        if not study.has(name):
            parts.append(study.planned(name))
            continue
        analysis = study.get(name)
        forest = f"![Differences to every control]({name}/figures/differences.png)"
        shown = [row for row in rows(analysis.tables["summary"]) if row["role"] == "method"]
        parts += [f"**{analysis.frames.suite.purpose.capitalize()}**", forest,
                  _table(shown, {**_SUITE, "method": _linked(name)})]  # fmt: skip
    return [*parts, *_figures_of_the_paper(study)]


def _figures_of_the_paper(study: Study) -> list[str]:
    name = "tokenformer_figures"
    if not study.has(name):
        return [study.planned(name)]
    analysis = study.get(name)
    table, lowest = repeats.as_shown(analysis), float(analysis.frames.runs.test_bpb.min())
    repeated = [row for row in rows(table) if row["epochs"] > 1]
    deepest = min(repeated or rows(table), key=lambda row: float(row["train_bpb"]))
    losses = repeats.training_loss(analysis.frames)
    curve = Drawing(analysis).curves[deepest["method"]]
    return [
        "**In the manner of the paper's figures, and by this protocol.** Models trained on one "
        "text grow and go on with another, read once (`continued_*`) or again and again "
        f"(`repeated_*`). On repeated text the training loss of `{deepest['method']}` falls to "
        f"{formats.bpb(deepest['train_bpb'])} bits per byte, "
        f"{formats.bpb(lowest - deepest['train_bpb'])} below anything that any run reaches on "
        f"held-out text ({formats.bpb(lowest)}); its own held-out loss is then "
        f"{formats.bpb(deepest['test_bpb'])}.",
        study.picture("repeats", "Training loss on repeated text falls below held-out loss", table,
                      pictures.repeats, losses, curve, deepest["method"], lowest),
        _table(rows(table), {**_SHOWN, "method": _linked(name)}),
    ]  # fmt: skip


def of_conventions(study: Study) -> list[str]:
    """What each way of counting is worth on the same runs."""
    if (name := study.answers) is None:
        return [study.planned(HEADLINE[0])]
    table = study.get(name).tables["conventions"]
    if table.empty:
        return ["Scratch was not annealed at half of C*, so nothing can be counted."]
    table = table.sort_values("ours", ascending=False, kind="stable")
    cited = {(row["published"], row["convention"], row["source"]): row["method"]
             for row in rows(table)[::-1] if row["source"]}  # fmt: skip
    columns: Columns = {**COUNTED, "method": _linked(name), "published": ("published", str)}
    *explained, _ = by_convention(study.get(name))
    return [
        *explained,
        study.picture("conventions", "Speed-up of every method by each convention", table,
                      pictures.conventions),
        _table(rows(table), columns),
        "\n".join(f"- `{method}`, published: {claim}, {convention} ({source})."
                  for (claim, convention, source), method in cited.items()),
        "Training loss on repeated text is a convention, too: see the figures of the paper above.",
    ]  # fmt: skip


def of_scale(study: Study) -> list[str]:
    """The ladder, as far as it was climbed."""
    there = [study.get(name) for name in LADDER if study.has(name)]
    parts = [study.planned(*LADDER)]
    if len(there) < 2:  # noqa: PLR2004
        return parts
    table = trend.trend(there)
    return [
        *parts,
        study.picture("trend", "Difference to scratch and speed-up against compute", table,
                      pictures.trend),
        _table(rows(trend.slopes(table)), _SLOPES),
        "Sizes that never grow, at each budget:",
        _table(trend.hull(there), _HULL),
        trend.extension(there, table),
    ]  # fmt: skip


def of_regime(study: Study) -> list[str]:
    """Target sizes, times and factors."""
    there = [study.get(name) for name in REGIME if study.has(name)]
    if not there:
        return [study.planned(*REGIME)]
    table = regime.regime(there)
    drawn = study.picture("regime", "Where growing ends lower", table, pictures.regime)
    return [study.planned(*REGIME), regime.where_it_pays(table), drawn]


def of_mixes(study: Study) -> list[str]:
    """What matters when several sizes grow."""
    if not study.has("mixes"):
        return [study.planned("mixes")]
    effects, parts = mixes.mixes(study.get("mixes").frames)
    return [
        what_matters(effects, parts),
        study.picture("mixes", "What each choice changes", effects, main_effects),
        "Every mix, beside its controls: [mixes/report.md](mixes/report.md#runs).",
    ]


def of_rounding(study: Study) -> list[str]:
    """Suites that were trained twice."""
    again = sorted(path.name for path in study.results.glob(f"*{AGAIN}") if study.has(path.name))
    if not again:
        return ["No suite is published twice yet, so the noise of rounding is not measured here."]
    parts = []
    for name in again:
        one, other = study.get(name.removesuffix(AGAIN)), study.get(name)
        table = rounding.rounding(one, other)
        parts += [rounding.how_much(table, one, other),
                  study.picture(f"rounding_{one.frames.suite.name}", "Noise of seeds and rounding",
                                table, pictures.rounding)]  # fmt: skip
    return parts


Section = Callable[[Study], list[str]]
SECTIONS: Mapping[str, Section] = {
    "TokenFormer": of_tokenformer,
    "What conventions are worth": of_conventions,
    "With scale": of_scale,
    "Where growing pays": of_regime,
    "What matters when mixing": of_mixes,
    "How much of the noise is rounding": of_rounding,
    "What remains open": lambda _: [
        "Larger models and budgets, other optimizers and tokenizers, and everything that the lines "
        "above call planned. Whoever trains the next rung adds a suite; this page fills itself in."
    ],
}
OF_TOKENFORMER = ("tokenformer", TUNED, "wikipedia", "tokenformer_rules")
STUDY = tuple(
    dict.fromkeys((*HEADLINE, *OF_TOKENFORMER, "tokenformer_figures", *LADDER, *REGIME, "mixes"))
)


def _linked(suite: str) -> formats.Column:
    return "method", lambda method: f"[`{method}`]({suite}/report.md#runs)"


def _gap(name: str) -> formats.Column:
    return "", lambda row: formats.gap(row, name)


def _and(words: Iterable[str]) -> str:
    return formats.listed(list(words))


def _table(shown: Sequence[Row], columns: Columns) -> str:
    return formats.table(formats.cells(shown, columns))


_SUITE: Columns = {
    "method": ("method", str),
    "what grows, when": ("grows", str),
    "minus scratch": _gap(f"vs_{SCRATCH}"),
    "minus best fixed": _gap(f"vs_{BEST_FIXED}"),
    "verdict": ("", lambda row: in_words(row["verdict"], row["n"], row["worse_than"])),
}
_SHOWN: Columns = {
    "method": ("method", str),
    "epochs": ("epochs", formats.number),
    "training loss, bpb": ("train_bpb", formats.bpb),
    "held out": ("test_bpb", formats.bpb),
    "minus the paper's baseline": _gap("vs_corner"),
    "minus no growth": _gap("vs_ungrown"),
    "minus scratch": _gap(f"vs_{SCRATCH}"),
}
_SLOPES: Columns = {
    "method": ("method", formats.code),
    "rungs": ("rungs", str),
    "bpb per decade of compute": (
        "",
        lambda row: formats.difference(row["slope"], row["low"], row["high"]),
    ),
    "speed-up per decade, times": ("", lambda row: formats.within(row, "factor", formats.times)),
}
_HULL: Columns = {
    "suite": ("suite", lambda name: f"[{name}]({name}/report.md#runs)"),
    "C*": ("budget_flops", formats.flops),
    "target": ("target", formats.count),
    "sizes beside it": ("", lambda row: f"{row['smaller']} smaller, {row['larger']} larger"),
    "scratch, bpb": ("scratch_bpb", formats.bpb),
    "best without growing": (
        "",
        lambda row: f"`{row['method']}`, {formats.count(row['n_params'])}",
    ),
    "minus scratch": _gap(f"vs_{SCRATCH}"),
}
