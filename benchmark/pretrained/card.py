"""The model card of a grown checkpoint: what was done, by which version, and what came of it."""

import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tabulate import tabulate

from benchmark.pretrained.grow import Plan
from benchmark.pretrained.proof import Difference


def card(plan: Plan, found: Sequence[Difference], name: str) -> str:
    """Markdown for README.md; metadata of the original's card, such as its licence, are kept."""
    original, request = _original(plan.source.path), plan.request
    steps = [(name, grown, "yes" if exact else "no") for name, grown, exact in plan.steps()]
    command = ["growbench", "grow", plan.source.path.name, "--method", request.method]
    command += [text for to in request.to for text in ("--to", to)]
    command += [f"{key}={value}" for key, value in request.arguments.items()]
    versions = ", ".join(f"{of} {version(of)}" for of in ("growbench", "torch", "safetensors"))
    parts = [
        f"# {name}",
        f"`{plan.source.path.name}`, grown and not trained since:",
        f"    {shlex.join(command)} --seed {request.seed} --out {shlex.quote(name)}",
        tabulate(steps, ["operator", "grows", "claimed to keep the function"], "github"),
        f"Made with {versions}.",
        differences(plan, found) if found else "The logits were not compared (`--no-check`).",
    ]
    front, text = original
    if text:
        parts += [f"# The card of {plan.source.path.name}", text]
    return front + "\n\n".join(parts) + "\n"


def differences(plan: Plan, found: Sequence[Difference]) -> str:
    """What the logits of both models on generated ids differ by, as a table."""
    rows = [
        (
            str(difference.dtype).removeprefix("torch."),
            f"{difference.largest:.1e}",
            f"{difference.rounding:.1e}",
            f"{difference.scale:.2g}",
            ("equal" if plan.is_exact else "nothing")
            + ("" if difference.is_rounding or not plan.is_exact else ", which does not hold"),
        )
        for difference in found
    ]
    heads = ["run in", "logits differ by", "rounding alone", "standard deviation", "claimed"]
    return tabulate(rows, heads, "github", disable_numparse=True)


def _original(path: Path) -> tuple[str, str]:
    """Front matter and text of a checkpoint's own card; empty where there is none."""
    if not (path / "README.md").is_file():
        return "", ""
    text = (path / "README.md").read_text(encoding="utf-8")
    front = re.match(r"---\n.*?\n---\n+", text, re.DOTALL)
    return (front[0], text[front.end() :].strip()) if front else ("", text.strip())
