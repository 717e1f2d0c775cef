"""Are the image files there and whole? Asked before hours of work depend on them.

A JPEG is taken to be whole when it starts with the start-of-image marker and ends with the end-of-image
marker: a copy that broke off lacks the latter, and no pixel has to be decoded. Other formats are decoded. On
demand every image is, which also finds damage between the markers.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

from tqdm import tqdm

from camera3d.data.decoding import JPEG_START, Undecodable, jpeg_tail_fault, read_any_colour, read_image
from camera3d.errors import ImagesBroken, shown

_TAIL_BYTES = 4096


class FrameFiles(Protocol):
    """Of a frame, which files it has, relative to the dataroot, and whether they may be grey."""

    image_paths: tuple[str, ...]
    any_colour: bool


def check_images(
    dataroot: str | Path,
    frames: Iterable[FrameFiles],
    jobs: int = 8,
    progress: bool = True,
    *,
    decode: bool = False,
) -> int:
    """Check every image of `frames`; returns how many there are.

    Args:
        decode: read every file and decode it, as training and dump do.

    Raises ImagesBroken with the complete list in `.paths` (relative to the dataroot, in the order of the
    frames), ten of them in the message. `jobs` threads; `progress` shows a bar on stderr.
    """
    root, fault_of = Path(dataroot), decoding_fault if decode else image_fault
    paths = {path: frame.any_colour for frame in frames for path in frame.image_paths}
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        faults = pool.map(lambda file: fault_of(root / file[0], any_colour=file[1]), paths.items())
        bar = tqdm(faults, total=len(paths), desc="checking images", unit="file", disable=not progress)
        broken = [(path, fault) for path, fault in zip(paths, bar, strict=True) if fault]
    if broken:
        lines = shown(f"{path}: {fault}" for path, fault in broken)
        raise ImagesBroken(
            f"{len(broken)} of {len(paths)} image files below {root} are missing or broken:\n{lines}\n"
            "Copy or unpack these files again.",
            broken,
        )
    return len(paths)


def leaves_dataroot(name: str) -> bool:
    """Whether a path that a dataset's tables give is none of a file below the dataroot."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not name


def image_fault(path: Path, *, any_colour: bool = False) -> str | None:
    """What is wrong with an image file, in a few words; None when it is whole."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if size == 0:
        return "empty"
    if start == JPEG_START:
        return jpeg_tail_fault(tail)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        return "not a JPEG (no start marker)"
    return decoding_fault(path, any_colour=any_colour)


def decoding_fault(path: Path, *, any_colour: bool = False) -> str | None:
    """What keeps an image file from being decoded, in a few words; None when it is whole."""
    try:
        (read_any_colour if any_colour else read_image)(path)
    except Undecodable as fault:
        return str(fault)
    return None
