"""A GPU made of pretence: numbers stay in main memory, devices are kept apart as on CUDA.

Tensors of the device "gpu" hold a CPU tensor that nobody else sees. An operation that gets tensors
of both devices is put to PyTorch's own `FakeTensorMode` with a fake CUDA device, which knows what
CUDA refuses. So a whole training runs, with real numbers, and fails where it would on a GPU for a
tensor, or a random generator, that was left on the CPU. No test lives here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from typing_extensions import override

NAME = "gpu"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)

MOVES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
"""What may have tensors of both devices whatever their shapes."""

WITHOUT_BITS = {
    torch.ops.aten._conj.default: torch.ops.aten._conj_physical.default,
    torch.ops.aten._neg_view.default: torch.ops.aten.neg.default,
}
"""What PyTorch notes in a bit of the tensor, which `OnGpu` does not have."""

MATH = 0
"""Attention composed of other operations, in `torch.nn.attention.SDPBackend`."""


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    value: Tensor

    def __new__(cls, value: Tensor) -> Self:
        """Wrap what the GPU would hold."""
        tensor: Self = Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=DEVICE,
            requires_grad=value.requires_grad,
        )
        tensor.value = value
        return tensor

    @override
    def untyped_storage(self) -> torch.UntypedStorage:
        return self.value.untyped_storage()

    @override
    def tolist(self) -> Any:
        return self.value.tolist()

    @classmethod
    @override
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


_LIBRARY = torch.library.Library("aten", "IMPL")
"""`torch.tensor` asks no mode but the device itself for memory, and to copy into it."""


@torch.library.impl(_LIBRARY, "empty_strided", "PrivateUse1")
def _empty_strided(
    size: list[int], stride: list[int], *, dtype: torch.dtype | None = None, **_: object
) -> Tensor:
    return OnGpu(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl(_LIBRARY, "_copy_from", "PrivateUse1")
def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    held = target.value if isinstance(target, OnGpu) else target
    held.copy_(source.value if isinstance(source, OnGpu) else source)
    return target


class _PretendGpu(TorchDispatchMode):
    @override
    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.to.dtype_layout:  # whole only in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        return _run(func, args, kwargs)


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """While it lasts, the device is there."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # parameters move, as on CUDA
    try:
        with _PretendGpu(), torch.autograd.set_multithreading_enabled(False):  # type: ignore[no-untyped-call]
            yield DEVICE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def _run(func: OpOverload, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """An operation, on what the tensors of the GPU hold; they hold what it makes."""
    leaves = tree_leaves((args, kwargs))
    held = {id(leaf.value): leaf for leaf in leaves if isinstance(leaf, OnGpu)}
    on_cpu = {id(leaf) for leaf in leaves if isinstance(leaf, Tensor) and type(leaf) is not OnGpu}
    asked = next((leaf.type for leaf in leaves if isinstance(leaf, torch.device)), None)
    if not held and asked != NAME:
        return func(*args, **kwargs)
    if func is torch.ops.aten._fused_sdp_choice.default:
        return MATH
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{func}: a generator of the CPU draws for a tensor of the GPU")
    if on_cpu and func.overloadpacket not in MOVES:
        _judge(func, args, kwargs)
    func = WITHOUT_BITS.get(func, func)
    with torch.inference_mode(False):  # whose views must be of tensors made within it
        made = func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))

        def wrap(leaf: object) -> object:
            if not isinstance(leaf, Tensor) or asked == "cpu" or id(leaf) in on_cpu:
                return leaf
            return held[id(leaf)] if id(leaf) in held else OnGpu(leaf)

        return tree_map(wrap, made)


def _unwrap(leaf: object) -> object:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.value if isinstance(leaf, OnGpu) else leaf


def _judge(func: OpOverload, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Raise what CUDA would raise for these devices."""
    with FakeTensorMode():

        def fake(leaf: object) -> object:
            if not isinstance(leaf, Tensor):
                return leaf
            device = "cuda" if isinstance(leaf, OnGpu) else "cpu"
            return torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype, device=device)

        func(*tree_map(fake, args), **tree_map(fake, kwargs))


class _Accelerator(CPUAccelerator):
    @override
    def setup_device(self, device: torch.device) -> None:
        assert device == DEVICE


def gpu_fabric(*_: object) -> Fabric:
    """Fabric for the pretended GPU, whatever is asked for."""
    return Fabric(strategy=SingleDeviceStrategy(device=DEVICE, accelerator=_Accelerator()))
