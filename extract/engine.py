"""Run the teacher over scenes, frame by frame, and hand what it sees to the store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from cache_schema.spec import ArraySpec
from cache_schema.writer import StoreWriter
from camera3d.data import ImagePipeline, NuScenesIndex, Scene, StreamingFrames
from camera3d.detectors import Detector


@dataclass(frozen=True, kw_only=True)
class DumpReport:
    """What one call of `dump` did.

    Attributes:
        samples, scenes: how many were written, and how many scenes were there already.
        seconds: wall clock over the loop; of these `forward_seconds` inside the detector.
    """

    samples: int
    scenes: int
    scenes_present: int
    seconds: float
    forward_seconds: float


def dump(
    detector: Detector,
    index: NuScenesIndex,
    pipeline: ImagePipeline,
    dataroot: str,
    writer: StoreWriter,
    *,
    device: torch.device,
    workers: int = 0,
    progress: bool = True,
) -> DumpReport:
    """Write every scene of the index that the store does not hold yet.

    A scene is a stream: each frame is given the BEV map of the one before, the first one none.

    Args:
        workers: processes that read images ahead.

    Raises:
        CacheError, Camera3DError: from the store and the images; the scene in flight is discarded.
    """
    present = set(writer.published_scenes())
    todo = [scene for scene in index.scenes if scene.name not in present]
    detector = detector.to(device)
    start, forward_seconds, samples = time.perf_counter(), 0.0, 0
    if todo:
        frames = StreamingFrames(index.select(scene.name for scene in todo), pipeline, dataroot)
        items = iter(
            DataLoader(
                frames,
                batch_size=None,
                num_workers=workers,
                pin_memory=device.type == "cuda",
                prefetch_factor=2 if workers else None,
            )
        )
        bar = tqdm(total=len(frames), unit="sample", desc="dump", disable=not progress, smoothing=0.1)
        with bar:
            for scene in todo:
                bar.set_postfix_str(scene.name)
                for seconds in dump_scene(detector, scene, items, writer, device):
                    forward_seconds += seconds
                    samples += 1
                    bar.update()
    return DumpReport(
        samples=samples,
        scenes=len(todo),
        scenes_present=len(index.scenes) - len(todo),
        seconds=time.perf_counter() - start,
        forward_seconds=forward_seconds,
    )


def dump_scene(
    detector: Detector, scene: Scene, items: Iterator[dict], writer: StoreWriter, device: torch.device
) -> Iterator[float]:
    """Write one scene; yields the seconds of each forward pass. `items` stands at the scene's first frame."""
    samples = [(frame.sample_token, frame.timestamp_us) for frame in scene.frames]
    with writer.scene(scene.name, scene.token, samples) as open_scene:
        prev_bev = None
        for _ in samples:
            item = next(items)
            start = time.perf_counter()
            with torch.inference_mode():
                outputs = detector.encode(
                    item["images"][None].to(device, non_blocking=True),
                    item["lidar2img"][None].to(device),
                    item["can_bus"][None].to(device),
                    prev_bev,
                )
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start
            prev_bev = outputs.bev_feats
            tensors = outputs.sample_arrays(0)
            tensors |= {"can_bus": item["can_bus"], "lidar2img": item["lidar2img"]}
            open_scene.append(item["sample_token"], stored_arrays(tensors, writer.spec.arrays))
            yield seconds


def stored_arrays(tensors: dict[str, torch.Tensor], arrays: Sequence[ArraySpec]) -> dict[str, np.ndarray]:
    """The wanted arrays in the types they are stored in; converted on the device, before they are copied."""
    return {spec.name: tensors[spec.name].to(getattr(torch, spec.dtype)).cpu().numpy() for spec in arrays}
