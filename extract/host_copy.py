"""Bring what is stored from the device to the host, without holding the next forward pass up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cache_schema.spec import ArraySpec


class HostCopier:
    """Converts arrays to their stored types on the device and copies them beside the detector's own work."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(
        self, tensors: Mapping[str, Tensor], arrays: Sequence[ArraySpec]
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Begin to copy the wanted arrays; the returned function waits for them, on whichever thread."""
        stored = {spec.name: tensors[spec.name].to(getattr(torch, spec.dtype)) for spec in arrays}
        if self._stream is None:
            return lambda: {name: values.numpy() for name, values in stored.items()}
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
