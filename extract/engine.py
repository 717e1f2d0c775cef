"""Run the teacher over scenes, frame by frame, and hand what it sees to the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from cache_schema.detections import DETECTION_ARRAYS, MAX_DETECTIONS
from cache_schema.writer import StoreWriter
from camera3d.data import ImagePipeline, SplitIndex
from camera3d.data.scene_frames import SceneFrames
from camera3d.detectors import Detector
from camera3d.streaming import detections_of, frame_specs, run_scene
from extract.background import BackgroundWriter
from extract.focal_areas import FocalAreas, Kept
from extract.host_copy import HostCopier
from extract.progress import StoreProgress


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
    index: SplitIndex,
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

    A scene is a stream: each frame is given the state of the one before, the first one none.

    Args:
        focal: for profile `focal`, what to keep of each sample.
        workers: processes that read images ahead.
        progress: whether a bar shows how far the store is, with what other processes publish.

    Raises:
        CacheError, Camera3DError, OSError: from the store, the images and the teacher; the scene in flight is
            discarded.
    """
    todo = index.select([name for name in index.scene_names if not writer.is_published(name)])
    detector = detector.to(device)
    copier = HostCopier(device, writer.spec)
    specs = detector.output_specs(tuple(pipeline.pad_hw))
    from_frame = [spec.name for spec in frame_specs(detector.inputs)]
    start, clock = time.perf_counter(), ForwardClock(device)
    scenes = SceneFrames(
        todo, pipeline, dataroot, workers=workers, pin_memory=device.type == "cuda", skip=writer.is_published
    )
    own = {scene.name: scene.stop - scene.first for scene in index.scene_rows}
    with StoreProgress(writer, own, shown=progress) as bar, BackgroundWriter(writer) as store:
        for scene, frames in scenes:
            bar.begin(scene.name)
            store.begin(scene)
            outputs = run_scene(detector, frames, device, clock)
            for frame, (item, batch) in zip(scene.frames, outputs, strict=True):
                found = detections_of(detector, specs, batch, frame.sample_token)
                tensors = {name: values[0] for name, values in batch.items()}
                tensors |= dict(zip(DETECTION_ARRAYS, found.best(MAX_DETECTIONS), strict=True))
                tensors |= {name: item[name] for name in from_frame}
                kept = Kept() if focal is None else focal.kept(frame, tensors)
                store.append(frame.sample_token, copier.start(tensors), kept)
                bar.sample(scene.name)
    return DumpReport(
        samples=store.samples,
        scenes=store.scenes,
        scenes_present=len(index.scene_rows) - store.scenes,
        seconds=time.perf_counter() - start,
        forward_seconds=clock.seconds,
    )


class ForwardClock:
    """The context of every forward pass, which adds up how long they take."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Without gradient, and timed until the device has finished."""
        start = time.perf_counter()
        with torch.inference_mode():
            yield
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self.seconds += time.perf_counter() - start
