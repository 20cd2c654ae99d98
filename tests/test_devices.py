"""Code that decides what is trained says where each of its tensors is, and names no GPU.

A module's constructor is the exception: its tensors are made where PyTorch's default device is, so
that a model without memory can be made, and move with the module. All that is drawn, and the maps
of growth, are on the CPU by name: the same numbers on every device.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("benchmark/growth", "benchmark/model", "benchmark/training", "baselines")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]

FACTORIES = frozenset({
    "arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "from_numpy", "full",
    "hamming_window", "hann_window", "linspace", "logspace", "normal", "ones", "rand", "randint",
    "randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
})  # fmt: skip
"""Functions of `torch` that make a tensor out of none."""

GPU_METHODS = frozenset({"cuda", "xpu", "mps", "hpu"})
CONSTRUCTORS = frozenset({"__init__", "rotation"})
"""Functions that make the tensors of a module; `rotation` is called by one."""


def faults(source: str) -> list[str]:
    """What ties a source file to a device, as "line: reason"."""
    return [f"{line}: {reason}" for line, reason in sorted(_faults(ast.parse(source), ""))]


def _faults(node: ast.AST, function: str) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.FunctionDef):
        function = node.name
    if isinstance(node, ast.Call):
        yield from ((node.lineno, reason) for reason in _of_call(node, function))
    for child in ast.iter_child_nodes(node):
        yield from _faults(child, function)


def _of_call(call: ast.Call, function: str) -> Iterator[str]:
    name = ast.unparse(call.func)
    module, _, attribute = name.rpartition(".")
    if attribute in GPU_METHODS:
        yield f"{name} names a device"
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if attribute in ("to", "device") or any(keyword.arg == "device" for keyword in call.keywords):
        names = [a.value for a in arguments if isinstance(a, ast.Constant)]
        yield from (f"{name} names {found!r}" for found in names if _is_gpu(found))
    is_placed = any(keyword.arg == "device" for keyword in call.keywords)
    is_factory = module == "torch" and attribute in FACTORIES
    if is_factory and not is_placed and function not in CONSTRUCTORS:
        yield f"{name} does not say on which device"


def _is_gpu(found: object) -> bool:
    return isinstance(found, str) and found.partition(":")[0] in GPU_METHODS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_tensor_is_put_somewhere_on_purpose(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x = torch.zeros(3)", "torch.zeros does not say on which device"),
        ("x = torch.tensor(1.0) + y", "torch.tensor does not say on which device"),
        ("x = y + torch.randn(y.shape, generator=g)", "torch.randn does not say on which device"),
        ("x = y.cuda()", "y.cuda names a device"),
        ("x = y.to('cuda')", "y.to names 'cuda'"),
        ("x = y.to(device='cuda:1')", "y.to names 'cuda:1'"),
        ("x = torch.ones(3, device='cuda')", "torch.ones names 'cuda'"),
        ("x = torch.device('cuda', 0)", "torch.device names 'cuda'"),
    ],
)
def test_a_tensor_that_is_tied_to_a_device_is_found(line: str, reason: str) -> None:
    assert faults(f"def f(y, g):\n    {line}\n") == [f"2: {reason}"]


@pytest.mark.parametrize(
    "line",
    [
        "x = torch.zeros(3, device=y.device)",
        "x = torch.randn(3, generator=g, device='cpu').to(y)",
        "x = torch.zeros_like(y)",
        "x = y.new_zeros(3)",
        "x = torch.cat([y, y])",
    ],
)
def test_a_tensor_that_is_put_somewhere_is_not(line: str) -> None:
    assert faults(f"def f(y, g):\n    {line}\n") == []


def test_the_tensors_of_a_module_may_be_made_on_the_default_device() -> None:
    assert faults("def __init__(self):\n    self.w = torch.empty(3)\n") == []
