"""Run a detector over the scenes of an index, frame by frame, as a temporal model is used on the road."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from camera3d.data import ImagePipeline, SplitIndex
from camera3d.data.scene_frames import SceneFrames
from camera3d.detectors import Detector
from camera3d.detectors.protocol import Detections
from camera3d.streaming import detections_of, run_scene


def predict_split(
    detector: Detector,
    index: SplitIndex,
    pipeline: ImagePipeline,
    dataroot: str | Path,
    *,
    device: torch.device | str,
    workers: int = 2,
    autocast_dtype: torch.dtype | None = None,
    progress: bool = True,
) -> Iterator[tuple[str, Detections]]:
    """Sample token and detections, on the CPU, of every frame of the index in order.

    Each frame is given the state of the one before, the first of a scene none. The detector is in eval mode
    while the iterator lives and afterwards as it was, module by module; the global random state is not used.

    Args:
        detector: not wrapped in DistributedDataParallel. It is moved to `device`.
        workers: processes that read images ahead.
        autocast_dtype: lets the detector compute in this dtype; boxes are decoded in float32 all the same.
        progress: whether to show a bar on stderr.

    Raises:
        OutputsNotFinite: at the first frame with such predictions, which the decoder would take for nothing.
        Camera3DError: as reading a frame does.
    """
    device = torch.device(device)
    scenes = SceneFrames(index, pipeline, dataroot, workers=workers, pin_memory=device.type == "cuda")
    specs = detector.output_specs(tuple(pipeline.pad_hw))
    bar = tqdm(total=len(index), unit="sample", desc="evaluate", disable=not progress, smoothing=0.1)

    @contextlib.contextmanager
    def forward_pass() -> Iterator[None]:
        # Not inference mode: what a module keeps for later must stay fit for training.
        with torch.no_grad(), torch.autocast(device.type, autocast_dtype, enabled=autocast_dtype is not None):
            yield

    with bar, evaluating(detector):
        detector.to(device)
        for _, frames in scenes:
            for item, outputs in run_scene(detector, frames, device, forward_pass):
                token = item["sample_token"]
                found = detections_of(detector, specs, outputs, token)
                yield token, Detections(**{name: values.cpu() for name, values in vars(found).items()})
                bar.update()


@contextlib.contextmanager
def evaluating(detector: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module has the mode that it had."""
    training = [(module, module.training) for module in detector.modules()]
    detector.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
