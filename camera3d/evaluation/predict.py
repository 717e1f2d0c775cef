"""Run a detector over the scenes of an index, frame by frame, as the temporal model is used on the road."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from camera3d.data import ImagePipeline, NuScenesIndex, StreamingFrames
from camera3d.data.streaming import StreamingItem
from camera3d.detectors import Detector
from camera3d.detectors.protocol import Detections, DetectorOutputs
from camera3d.errors import Camera3DError
from camera3d.evaluation.errors import OutputsNotFinite


@dataclass(frozen=True)
class _Failure:
    """What went wrong with a frame, as a value: a DataLoader would bury the message under a traceback."""

    error: Camera3DError


class _GuardedFrames(Dataset):
    def __init__(self, frames: StreamingFrames) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, row: int) -> StreamingItem | _Failure:
        try:
            return self._frames[row]
        except Camera3DError as error:
            return _Failure(error)


def predict_split(
    detector: Detector,
    index: NuScenesIndex,
    pipeline: ImagePipeline,
    dataroot: str | Path,
    *,
    device: torch.device | str,
    workers: int = 2,
    autocast_dtype: torch.dtype | None = None,
    progress: bool = True,
) -> Iterator[tuple[str, Detections]]:
    """Sample token and detections, on the CPU, of every frame of the index in order.

    Each frame is given the BEV map of the one before, the first of a scene none. The detector is in eval mode
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
    loader = DataLoader(
        _GuardedFrames(StreamingFrames(index, pipeline, dataroot)),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_parent,
        # Otherwise the loader draws a seed, and a training that evaluates sees other random numbers.
        generator=torch.Generator(),
    )
    bar = tqdm(total=len(index), unit="sample", desc="evaluate", disable=not progress, smoothing=0.1)
    autocast = (
        contextlib.nullcontext() if autocast_dtype is None else torch.autocast(device.type, autocast_dtype)
    )
    prev_bev = None
    with bar, evaluating(detector):
        detector.to(device)
        for item in loader:
            if isinstance(item, _Failure):
                raise item.error
            # Not inference mode: what a module keeps for later must stay fit for training.
            with torch.no_grad(), autocast:
                outputs = detector.encode(
                    item["images"][None].to(device, non_blocking=True),
                    item["lidar2img"][None].to(device),
                    item["can_bus"][None].to(device),
                    prev_bev if item["has_prev"] else None,
                )
            prev_bev = outputs.bev_feats
            require_finite_queries(item["sample_token"], outputs.query_logits, outputs.query_boxes)
            yield item["sample_token"], _decoded(detector, outputs)
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


def require_finite_queries(sample_token: str, logits: Tensor, boxes: Tensor) -> None:
    """Raise OutputsNotFinite when predictions of a sample are not finite, with how many are not."""
    bad = torch.stack([(~values.isfinite()).sum() for values in (logits, boxes)]).tolist()
    if any(bad):
        raise OutputsNotFinite(
            f"sample {sample_token}: {bad[0]} of the {logits.numel()} class logits and {bad[1]} of the"
            f" {boxes.numel()} numbers of boxes that were predicted are not finite. The weights have"
            " diverged, or half precision does not hold them: take an earlier checkpoint or single precision."
        )


@torch.no_grad()
def _decoded(detector: Detector, outputs: DetectorOutputs) -> Detections:
    # In half precision many scores would be equal.
    full = replace(
        outputs, query_logits=outputs.query_logits.float(), query_boxes=outputs.query_boxes.float()
    )
    (found,) = detector.decode(full)
    return Detections(boxes=found.boxes.cpu(), scores=found.scores.cpu(), labels=found.labels.cpu())


def _leave_signals_to_parent(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; a worker that dies of it hides the reason from its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # With SIGTERM the parent ends its workers: it must not do there what it does in the parent.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
