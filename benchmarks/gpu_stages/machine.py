"""What the machine is: device, memory, versions, which operators there are, and what is missing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Iterator

import torch

from camera3d.ops import describe_backends
from camera3d.ops.backend import DCN, MSDA, mmcv_function
from gpu_stages.stage import Context, Measurement, Row

PACKAGES = ("numpy", "cv2", "PIL", "mmengine", "mmcv", "mmdet", "mmdet3d", "zarr", "nuscenes", "scipy")


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    yield "device", lambda: device(context)
    yield "host", lambda: host(context)
    yield "packages", packages
    yield "pictures", pictures


def device(context: Context) -> Row:
    """The accelerator, and which operators run on it."""
    row: Row = {"compiled operators of mmcv": bool(mmcv_function(MSDA) and mmcv_function(DCN))}
    row |= {f"operator {op}": backend for op, backend in describe_backends(context.device).items()}
    if context.device == "cpu":
        return row
    facts = torch.cuda.get_device_properties(0)
    free, _ = torch.cuda.mem_get_info()
    return {
        "name": facts.name,
        "capability": f"{facts.major}.{facts.minor}",
        "GB": facts.total_memory / 1e9,
        "GB free": free / 1e9,
        "multiprocessors": facts.multi_processor_count,
        "CUDA": torch.version.cuda or "none",
        "cuDNN": str(torch.backends.cudnn.version()),
        "devices": torch.cuda.device_count(),
        **row,
    }


def host(context: Context) -> Row:
    """Cores, memory and disk."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory, GB": pages / 1e9,
        "free below --work, GB": shutil.disk_usage(context.work).free / 1e9,
        "free in /dev/shm, GB": shared / 1e9,
        "system": platform.platform(),
    }


def packages() -> list[Row]:
    """Versions, and what cannot be imported."""
    return [{"package": name, "version": _version(name)} for name in PACKAGES]


def _version(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        return f"MISSING ({type(error).__name__}: {error})"[:120]
    return str(getattr(module, "__version__", "there"))


def pictures() -> Row:
    """Whether images can be written and read at all: scenes, dumps and trainings need that."""
    import cv2
    import numpy as np

    drawn = np.zeros((8, 8, 3), np.uint8)
    _, encoded = cv2.imencode(".jpg", drawn)
    return {"read back": bool(np.array_equal(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), drawn))}
