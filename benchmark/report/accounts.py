"""The sections of a report on what things cost: rows, sources, text and time."""

from benchmark.report import formats
from benchmark.report.analysis import Analysis
from benchmark.report.controls import RESTART_ONLY, SCRATCH
from benchmark.report.frames import rows


def costs(analysis: Analysis) -> list[str]:
    """What each row of the verdict table used, and the runs it is made of."""
    shown = [
        {
            "method": f"`{row['method']}`",
            "parameters": formats.count(row["n_params"]),
            "without embedding": formats.count(row["n_params_nonembedding"]),
            "FLOPs": formats.flops(row["flops"]),
            f"FLOPs to {SCRATCH}'s loss": formats.flops(row["cost_to_scratch"]),
            "tokens": formats.count(row["tokens"]),
            "epochs": formats.number(row["epochs"]) + " (!)" * (row["epochs"] > 1),
            "time": formats.seconds(row["seconds"]),
            "memory": formats.memory(row["peak_memory_bytes"]),
            "runs": row["run_ids"],
        }
        for row in rows(analysis.tables["summary"])
    ]
    return [
        f"Means over the seeds that have a result. FLOPs to {SCRATCH}'s loss: infinite if one of "
        "the seeds does not get there.",
        formats.table(shown),
    ]


def modes(analysis: Analysis) -> list[str]:
    """From nothing, and with the source as sunk cost."""
    shown = [
        {
            "method": f"`{row['method']}`",
            "n": str(row["n"]),
            "source, of C*": formats.percent(row["source_share"]),
            f"A, from nothing: minus {SCRATCH} at C*": formats.gap(row, "a_"),
            "B pays, of C*": formats.percent(row["paid_share"]),
            f"{SCRATCH} at that price": formats.bpb(row["b_scratch_bpb"]),
            f"B, source is sunk cost: minus {SCRATCH} at that price": formats.gap(row, "b_"),
        }
        for row in rows(analysis.tables["modes"])
    ]
    return [
        "**A, from nothing**, is the headline: the source model is charged. **B, source as sunk "
        "cost**, is secondary and decides no verdict: for the owner of a trained source, who pays "
        "only what came after the first growth began. The method's final test bpb then meets that "
        f"of a {SCRATCH} run annealed at the same price, read off a line over log FLOPs between "
        f"{SCRATCH}'s annealed budgets and never beyond them (a dash). Loss curves bend up, so "
        "the line lies above the curve and flatters a method whose price is between budgets. "
        f"`{RESTART_ONLY}` has the same advantage without growing: it only trains the source on. "
        "Under B a growth is worth something to the owner of the source if it ends below that row.",
        formats.table(shown),
    ]
