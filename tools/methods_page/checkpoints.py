"""What each method can do on each architecture: the table in docs/checkpoints.md."""

import re
from collections.abc import Iterator

from tabulate import tabulate

from benchmark.base.errors import BenchmarkError
from benchmark.base.paths import CONFIGS
from benchmark.growth import GrowthOperator
from benchmark.plan.config import available
from benchmark.pretrained.architecture import FOLDER, Layout, load_architecture
from benchmark.pretrained.growth import Growth, closed_form

PATH = CONFIGS.parent / "docs/checkpoints.md"
PLACE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- end of table -->)", re.DOTALL)
FACTORS = (1.5, 2, 3)
SIZES = {"d_model": 24, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "d_head": 4, "d_ff": 12,
         "vocab_size": 13, "seq_len": 32}  # fmt: skip
AXES = {
    "n_layer": ("n_layer",),
    "d_ff": ("d_ff",),
    "n_head and n_kv_head": ("n_head", "n_kv_head"),
    "n_head": ("n_head",),
    "d_model": ("d_model",),
    "d_model and n_head": ("d_model", "n_head"),
}


def methods() -> dict[str, tuple[GrowthOperator, ...]]:
    """Methods whose large tensors follow from the small ones, one for each set of operators."""
    found = dict[object, tuple[str, tuple[GrowthOperator, ...]]]()
    for name in available("method"):
        try:
            operators = closed_form(name, {})
        except BenchmarkError:
            continue
        kinds = frozenset(map(type, operators))
        if kinds not in found or len(name) < len(found[kinds][0]):
            found[kinds] = name, operators
    return dict(sorted(found.values()))


def table() -> str:
    """A row for each method and what it grows, a column for each architecture, in Markdown."""
    layouts = dict(_layouts())
    rows = list[list[str]]()
    for method, operators in methods().items():
        for axis, sizes in AXES.items():
            cells = [_cell(layout, operators, sizes) for layout in layouts.values()]
            if any(cell != "—" for cell in cells):
                rows.append([method, axis, *cells])
    return tabulate(rows, ["method", "grows", *layouts], "github", disable_numparse=True)


def _layouts() -> Iterator[tuple[str, Layout]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        architecture = load_architecture(path.stem)
        fields = {key: SIZES[size] for size, key in architecture.sizes.items()}
        yield ", ".join(architecture.model_types), Layout(architecture, fields)


def _cell(layout: Layout, operators: tuple[GrowthOperator, ...], sizes: tuple[str, ...]) -> str:
    """Factors by which these sizes can grow together; in brackets where the function changes."""
    found = list[str]()
    for factor in FACTORS:
        try:
            large = layout.target([f"{size}={factor}*{size}" for size in sizes])
            steps = Growth(layout, large, operators, seed=0).steps
        except BenchmarkError:
            continue
        found.append(f"{factor}" if all(step.is_exact for step in steps) else f"({factor})")
    return " ".join(found) or "—"


def page() -> str:
    """The document with the table as it is now."""
    text = PATH.read_text(encoding="utf-8")
    return PLACE.sub(lambda _: f"\n{table()}\n\n", text)
