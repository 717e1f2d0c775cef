"""Bring what is stored from the device to the host, without holding the next forward pass up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cache_schema.profiles.compact import SCALE_SUFFIX
from cache_schema.quantise import LARGEST
from cache_schema.spec import ArraySpec, StoreSpec


class HostCopier:
    """Converts arrays to their stored types on the device and copies them beside the detector's own work.

    A GPU also quantises the maps of profile `compact`, which halves what is copied; on a CPU that is left to
    the writer's thread, beside the next forward pass.
    """

    def __init__(self, device: torch.device, spec: StoreSpec) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._spec = spec

    def start(self, tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, np.ndarray]]:
        """Begin to copy the wanted arrays; the returned function waits for them, on whichever thread."""
        arrays = self._spec.arrays
        stored = {spec.name: tensors[spec.name].to(getattr(torch, spec.dtype)) for spec in arrays}
        if self._stream is None:
            return lambda: {name: values.numpy() for name, values in stored.items()}
        if self._spec.profile == "compact":
            stored = quantise_maps(stored, arrays)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            # A copy that does not block lands in page-locked memory, which torch keeps and gives out again.
            host = {name: values.to("cpu", non_blocking=True) for name, values in stored.items()}
            for values in stored.values():
                if values.is_cuda:
                    values.record_stream(self._stream)
            copied = torch.cuda.Event()
            copied.record(self._stream)

        def arrays_on_host() -> dict[str, np.ndarray]:
            copied.synchronize()
            return {name: values.numpy() for name, values in host.items()}

        return arrays_on_host


def quantise_maps(stored: Mapping[str, Tensor], arrays: Sequence[ArraySpec]) -> dict[str, Tensor]:
    """The arrays with every float16 map as int8 and its scales beside it, as `cache_schema.quantise` does it.

    A channel that is not finite gets a scale that is not finite either, which the writer refuses.
    """
    quantised = dict(stored)
    for array in arrays:
        if not array.is_map:
            continue
        values = stored[array.name].float()
        scale = values.abs().amax((-2, -1)) / LARGEST
        # Zeros divided by their scale, zero, are NaN, and so is what is not finite.
        steps = (values / scale[..., None, None]).round().nan_to_num(nan=0.0)
        quantised[array.name] = steps.to(torch.int8)
        quantised[array.name + SCALE_SUFFIX] = scale
    return quantised
