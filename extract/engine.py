"""Run the teacher over scenes, frame by frame, and hand what it sees to the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tqdm import tqdm

from cache_schema.writer import StoreWriter
from camera3d.data import ImagePipeline, NuScenesIndex
from camera3d.data.streaming import StreamingItem
from camera3d.detectors import Detector
from extract.background import BackgroundWriter
from extract.focal_areas import FocalAreas, Kept
from extract.frames import SceneFrames
from extract.host_copy import HostCopier


@dataclass(frozen=True, kw_only=True)
class DumpReport:
    """What one dumping process did, and how it left the store.

    Attributes:
        samples, scenes: how many it published, and how many of its scenes were there already.
        seconds: wall clock over the loop; of these `forward_seconds` inside the detector.
        shard: which part of the scenes was its, such as "1/1".
        scenes_missing: planned scenes that nobody has published yet.
        sealed: whether this process completed the store.
    """

    samples: int
    scenes: int
    scenes_present: int
    seconds: float
    forward_seconds: float
    shard: str = "1/1"
    scenes_missing: int = 0
    sealed: bool = False


def dump(
    detector: Detector,
    index: NuScenesIndex,
    pipeline: ImagePipeline,
    dataroot: str,
    writer: StoreWriter,
    *,
    device: torch.device,
    focal: FocalAreas | None = None,
    workers: int = 0,
    progress: bool = True,
) -> DumpReport:
    """Write every scene of the index that the store does not hold yet.

    A scene is a stream: each frame is given the BEV map of the one before, the first one none.

    Args:
        focal: for profile `focal`, what to keep of each sample.
        workers: processes that read images ahead.

    Raises:
        CacheError, Camera3DError, OSError: from the store and the images; the scene in flight is discarded.
    """
    todo = index.select([name for name in index.scene_names if not writer.is_published(name)])
    detector = detector.to(device)
    copier = HostCopier(device, writer.spec)
    start, forward_seconds = time.perf_counter(), 0.0
    scenes = SceneFrames(
        todo, pipeline, dataroot, workers=workers, pin_memory=device.type == "cuda", skip=writer.is_published
    )
    bar = tqdm(total=len(todo), unit="sample", desc="dump", disable=not progress, smoothing=0.1)
    with bar, BackgroundWriter(writer) as store:
        for scene, frames in scenes:
            bar.set_postfix_str(scene.name)
            store.begin(scene)
            outputs = teacher_outputs(detector, frames, device)
            for frame, (token, tensors, seconds) in zip(scene.frames, outputs, strict=True):
                kept = Kept() if focal is None else focal.kept(frame, tensors)
                store.append(token, copier.start(tensors), kept)
                forward_seconds += seconds
                bar.update()
    return DumpReport(
        samples=store.samples,
        scenes=store.scenes,
        scenes_present=len(index.scene_rows) - store.scenes,
        seconds=time.perf_counter() - start,
        forward_seconds=forward_seconds,
    )


def teacher_outputs(
    detector: Detector, frames: Iterator[StreamingItem], device: torch.device
) -> Iterator[tuple[str, dict[str, torch.Tensor], float]]:
    """Sample token, arrays by name, and seconds of the forward pass, for the frames of one scene in order."""
    prev_bev = None
    for item in frames:
        start = time.perf_counter()
        with torch.inference_mode():
            outputs = detector.encode(
                item["images"][None].to(device, non_blocking=True),
                item["lidar2img"][None].to(device),
                item["can_bus"][None].to(device),
                prev_bev,
            )
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        seconds = time.perf_counter() - start
        prev_bev = outputs.bev_feats
        tensors = outputs.sample_arrays(0)
        tensors |= {"can_bus": item["can_bus"], "lidar2img": item["lidar2img"]}
        yield item["sample_token"], tensors, seconds
