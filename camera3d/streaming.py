"""Run a detector through scenes frame by frame, as it is used on the road: dump, evaluation, live targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from camera3d.data.coco.frames import SIZES
from camera3d.data.names import CAMERA_NAMES
from camera3d.data.rig import RIG_NAMES
from camera3d.data.streaming import StreamingItem
from camera3d.detectors.protocol import (
    CALIBRATION,
    DENSE_HEAD,
    IMAGE_MAP,
    QUERY,
    Detections,
    Detector,
    Outputs,
    OutputSpec,
)
from camera3d.errors import OutputsNotFinite


def frame_specs(inputs: Sequence[str]) -> tuple[OutputSpec, ...]:
    """What a frame itself says, in the form of a detector's outputs.

    That is what the detector reads besides the images, and what its boxes are drawn with: `image_hw` and
    `valid_hw` for one that reads them, otherwise `lidar2img`.
    """
    if set(SIZES) <= set(inputs):
        size = {"role": CALIBRATION, "shape": (2,), "dimension_names": ("height_width",), "dtype": "int64"}
        return tuple(OutputSpec(name=name, **size) for name in SIZES)
    known = {
        "can_bus": OutputSpec(
            name="can_bus",
            role=CALIBRATION,
            shape=(18,),
            dimension_names=("can_bus_number",),
            dtype="float64",
        ),
        "lidar2img": OutputSpec(
            name="lidar2img",
            role=CALIBRATION,
            shape=(len(CAMERA_NAMES), 4, 4),
            dimension_names=("camera", "image_row", "lidar_column"),
            dtype="float64",
        ),
    }
    for name in RIG_NAMES:
        per_camera = name not in ("ego2global", "lidar2ego")
        known[name] = OutputSpec(
            name=name,
            role=CALIBRATION,
            shape=(len(CAMERA_NAMES), 4, 4) if per_camera else (4, 4),
            dimension_names=(*(("camera",) if per_camera else ()), "matrix_row", "matrix_column"),
            dtype="float64",
        )
    return tuple(spec for name, spec in known.items() if name in (*inputs, "lidar2img"))


def run_scene(
    detector: Detector,
    frames: Iterable[StreamingItem],
    device: torch.device,
    context: Callable[[], AbstractContextManager] = torch.inference_mode,
) -> Iterator[tuple[StreamingItem, Outputs]]:
    """Each frame of one scene with the detector's outputs, a batch of one; the state is handed on.

    Args:
        frames: of one scene, in order, from its first one on.
        context: entered around every forward pass.
    """
    state = None
    for item in frames:
        with context():
            outputs, state = detector.encode(frame_inputs(detector, item, device), state)
        yield item, outputs


def frame_inputs(detector: Detector, item: StreamingItem, device: torch.device) -> dict[str, Tensor]:
    """What a detector reads of a frame, as a batch of one on the device."""
    return {name: item[name][None].to(device, non_blocking=True) for name in detector.inputs}


def detections_of(
    detector: Detector, specs: Iterable[OutputSpec], outputs: Outputs, sample_token: str
) -> Detections:
    """What a detector found in one frame.

    Args:
        specs: of the outputs, see `Detector.output_specs`.
        outputs: a batch of one.

    Raises OutputsNotFinite: its predictions are not, which a decoder would take for nothing.
    """
    specs = list(specs)
    predicted = [spec.name for spec in specs if spec.role in (QUERY, DENSE_HEAD)]
    # A head that gives boxes alone drops what is not a number; the maps that it reads show it.
    predicted = predicted or [spec.name for spec in specs if spec.role == IMAGE_MAP]
    predicted = [name for name in predicted if outputs[name].is_floating_point()]
    if predicted:
        bad = torch.stack([(~outputs[name].isfinite()).sum() for name in predicted]).tolist()
        faults = [
            f"{count} of the {outputs[name].numel()} numbers of {name}"
            for name, count in zip(predicted, bad, strict=True)
            if count
        ]
        if faults:
            raise OutputsNotFinite(
                f"sample {sample_token}: {', '.join(faults)} that were predicted are not finite. The weights"
                " have diverged, or half precision does not hold them: take an earlier checkpoint or single"
                " precision."
            )
    with torch.no_grad():
        (found,) = detector.decode(outputs)
    return found
