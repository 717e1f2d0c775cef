"""A pretended accelerator: real numbers on the CPU under another device's name.

Code that was written for a GPU runs on it as it is. An operation between a tensor of it and one of the CPU
fails, as it would there, and whatever would make the host wait for the device, or send it something, is
counted by its name.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
ROOT = str(Path(__file__).parents[1]) + "/"
# What reads a number, or a number of things, back to the host.
WAITING = {
    "_local_scalar_dense": "item",
    "nonzero": "nonzero",
    "masked_select": "nonzero",
    "equal": "item",
    "is_nonzero": "item",
    "unique_dim": "nonzero",
    "_unique2": "nonzero",
}


class Waits(Counter):
    """How often, by kind; `sites` says from which lines of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: Counter[str] = Counter()

    def __setitem__(self, kind: str, count: int) -> None:
        super().__setitem__(kind, count)
        frames = [
            f"{frame.filename.removeprefix(ROOT)}:{frame.lineno}"
            for frame in traceback.extract_stack()
            if frame.filename.startswith(ROOT) and not set(Path(frame.filename).parts) & {"tests", ".venv"}
        ]
        self.sites[f"{kind} {' < '.join(reversed(frames[-2:])) or 'a backward pass'}"] += 1


class _Module:
    """What torch asks of a device's module."""

    get_amp_supported_dtype = staticmethod(lambda: [torch.float16, torch.bfloat16])
    is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)


def device() -> torch.device:
    """The pretended device, registered when it is first asked for."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, _Module)
    return torch.device(NAME, 0)


class PretendedTensor(torch.Tensor):
    """Numbers that lie on the CPU in `elem`, and say that they do not."""

    elem: torch.Tensor
    __slots__ = ("elem",)

    @staticmethod
    def __new__(cls, elem: torch.Tensor, requires_grad: bool = False) -> PretendedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            device=device(),
            requires_grad=requires_grad,
        )
        made.elem = elem
        return made

    def __repr__(self) -> str:
        return f"PretendedTensor({self.elem!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, Waits())


class Pretending(TorchDispatchMode):
    """Counts what makes the host wait or send; also makes what is created on the device.

    Attributes:
        waits: how often, by kind: `item`, `nonzero`, `to host`, `to device`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.waits)


class FromHostData(TorchFunctionMode):
    """Tensors made of Python numbers, which torch sends to a device without any operation to be seen."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.new_tensor and isinstance(args[0], PretendedTensor):
            self.waits["to device"] += 1
            return PretendedTensor(torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype))
        if func is torch.Tensor.tolist and isinstance(args[0], PretendedTensor):
            self.waits["to host"] += 1
            return args[0].elem.tolist()
        if func in (torch.tensor, torch.as_tensor) and _is_pretended(kwargs.get("device")):
            self.waits["to device"] += 1
            kwargs.pop("device")
            return PretendedTensor(func(*args, **kwargs))
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(
            args[0], PretendedTensor
        ):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(map(self._sent, index)), *args[2:])
        return func(*args, **kwargs)

    def _sent(self, index: object) -> object:
        """Of an index the part that torch makes a tensor of."""
        if isinstance(index, list | tuple | range):
            self.waits["to device"] += 1
            return PretendedTensor(torch.tensor(list(index)))
        return index


def _is_pretended(wanted: object) -> bool:
    return wanted is not None and torch.device(wanted).type == NAME


def _run(func, args: tuple, kwargs: dict, waits: Waits):
    """One operation on the numbers; raises as a GPU would when devices are mixed."""
    flat = tree_flatten((args, kwargs))[0]
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    pretended = [value for value in tensors if isinstance(value, PretendedTensor)]
    name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
    wanted = kwargs.get("device")
    goes_there = _is_pretended(wanted)
    leaves = bool(pretended) and wanted is not None and torch.device(wanted).type == "cpu"
    if not pretended and not goes_there:
        return func(*args, **kwargs)
    copies = name in ("_to_copy", "copy_")
    if copies:
        if leaves:
            waits["to host"] += 1
        elif len(pretended) < len(tensors):
            source = args[-1] if name == "copy_" else args[0]
            waits["to device" if not isinstance(source, PretendedTensor) else "to host"] += 1
        elif not pretended:
            waits["to device"] += 1
    elif pretended and len(pretended) < len(tensors):
        # A number of the host may take part anywhere.
        strangers = [t for t in tensors if not isinstance(t, PretendedTensor) and t.dim() > 0]
        indices_only = name in ("index", "index_put", "index_put_", "_unsafe_index")
        if strangers and not indices_only:
            raise RuntimeError(
                f"{name}: Expected all tensors to be on the same device, but found {NAME}:0 and cpu"
                f" ({[tuple(t.shape) for t in strangers]})"
            )
        if strangers:
            waits["to device"] += len(strangers)
    if name in WAITING:
        waits[WAITING[name]] += 1
    if name in ("index", "index_put", "index_put_", "_unsafe_index"):
        indices = tree_flatten(args[1])[0]
        if any(isinstance(t, torch.Tensor) and t.dtype in (torch.bool, torch.uint8) for t in indices):
            waits["nonzero"] += 1
    if goes_there:
        kwargs = {**kwargs, "device": "cpu"}
    plain_args, plain_kwargs = tree_map(_elem, (args, kwargs))
    found = func(*plain_args, **plain_kwargs)
    if leaves or (name == "copy_" and not isinstance(args[0], PretendedTensor)):
        return args[0] if name == "copy_" else found
    if name.endswith("_") and not name.endswith("__") and pretended and isinstance(args[0], PretendedTensor):
        return args[0]
    return tree_map(lambda value: PretendedTensor(value) if isinstance(value, torch.Tensor) else value, found)


def _elem(value):
    return value.elem if isinstance(value, PretendedTensor) else value


def pretend(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, on the pretended device; a leaf."""
    return PretendedTensor(tensor.detach(), requires_grad=tensor.requires_grad)


def move(module: nn.Module) -> nn.Module:
    """All weights and buffers to the pretended device, in place."""
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                part._parameters[name] = nn.Parameter(pretend(weight), requires_grad=weight.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = pretend(buffer)
    return module


def moved(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same by name, on the pretended device."""
    return {name: pretend(values) for name, values in tensors.items()}


@contextmanager
def pretending() -> Iterator[Waits]:
    """Runs on the pretended device; counts what would make a host wait."""
    with Pretending() as mode, FromHostData(mode.waits):
        yield mode.waits
