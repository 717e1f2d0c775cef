"""The seam between a detector and everything else: what goes in, what comes out.

Stage 1, stage 2, evaluation and pictures know detectors by this file alone. docs/bring-your-own-detector.md
shows a whole family.

Shapes: B batch, L decoder layers, Q object queries, K classes, n boxes of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from camera3d.boxes import BoxKind
from camera3d.detectors.history import History

# Role of an output.
IMAGE_MAP, BEV_MAP, QUERY, DENSE_HEAD, CALIBRATION = ROLES = (
    "image_map",
    "bev_map",
    "query",
    "dense_head",
    "calibration",
)
# What a student's head may start from; which weights these are is up to the family.
STARTS = ("none", "released", "head", "head_and_encoder")

Outputs = Mapping[str, Tensor]
"""Named tensors of a batch, batch first; `Detector.output_specs` describes them."""


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """One output of a detector, for one sample.

    Attributes:
        role: one of ROLES. Terms and stores ask for roles, never for a spelling.
            `image_map`: (camera, channel, y, x), finest level first among several.
            `bev_map`: (channel, y, x), y and x along the frame's axes, both ascending.
            `query`: about each object query; one dimension is called "query". How sure a query is, is read
            from `query_logits` (L, Q, K), before the sigmoid.
            `dense_head`: maps of a head without queries.
            `calibration`: what the frame itself says, such as `lidar2img`.
        shape, dimension_names: without the batch.
        dtype: in which a store keeps it.
        stride: of an image map, input pixels a cell.
        extent_m: of a BEV map, or of positions in [0, 1]: x, y, z minimum, then maximum, metres of `frame`.
        frame: "lidar" or "ego", of what has an extent; x of the ego frame points ahead. A detector with
            something in the ego frame has `lidar2ego` among its inputs.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dimension_names: tuple[str, ...]
    dtype: str = "float16"
    stride: float | None = None
    extent_m: tuple[float, ...] | None = None
    frame: str | None = None


def with_role(specs: Sequence[OutputSpec], role: str) -> list[OutputSpec]:
    """The outputs that have a role, in their order."""
    return [spec for spec in specs if spec.role == role]


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Decoded boxes of one sample, best first: boxes, scores (n,), labels (n,).

    3D boxes are (n, 9) in our convention; 2D boxes (n, 4): x1, y1, x2, y2 in pixels of the picture as it is
    in its file. See camera3d.boxes; `Detector.box_kind` says which of them.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def best(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels of the best ones."""
        return self.boxes[:count], self.scores[:count], self.labels[:count]


@dataclass(frozen=True)
class GroundTruth:
    """One sample's boxes, see Detections, and labels, (n,)."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class TeacherHead:
    """What a student's head may start from.

    Attributes:
        weights: of the teacher, as its `head_weights` gives them.
        specs: of all its outputs, kept in a store or not.
        image_scale: factor from camera pixels to the teacher's input pixels.
    """

    weights: Mapping[str, Tensor]
    specs: tuple[OutputSpec, ...]
    image_scale: float


@runtime_checkable
class Detector(Protocol):
    """What both stages ask of a camera-only detector. `camera3d.detectors.base` has what most share.

    Attributes:
        class_names: order of the labels.
        box_kind: what its boxes are: BOXES_3D or BOXES_2D of camera3d.boxes.
        inputs: names of the tensors of a frame that `encode` reads, see camera3d.data.streaming.
        training_inputs: of a frame, what `training_outputs` and `streamed_outputs` read besides, such as
            `lidar_depth`, or `bev_transform`, which moves an ego frame under augmentation.
        numerics_version: goes up when the golden outputs change.
        has_state: whether `encode` returns a state; false where every frame is seen by itself.
        history: how a training step sees the frames before; the training sets it.
    """

    class_names: tuple[str, ...]
    box_kind: BoxKind
    inputs: tuple[str, ...]
    numerics_version: int
    has_state: bool
    history: History

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        """Every output, for input images of that size, in the order they are stored in."""

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """Outputs of one frame a sample, and the state that the next frame of the scene is given.

        Args:
            frame: each of `inputs`, (B, …); in training also `has_prev` (B,) bool, false where what the state
                holds is not of this sample's scene: it is seen without history.
            state: of the frame before; None where a scene starts. Opaque to everybody else. It holds no
                gradient.
        """

    def decode(self, outputs: Outputs) -> list[Detections]:
        """Boxes, scores and labels of each sample."""

    def training_outputs(self, batch: Mapping[str, Tensor]) -> Outputs:
        """Outputs of the last frame of each queue, with gradient.

        Args:
            batch: (B, T, …) of T frames, with `has_prev` (B, T) bool, false where a scene starts.
        """

    def streamed_outputs(self, batch: Mapping[str, Tensor], state: object) -> tuple[Outputs, object]:
        """Outputs of one frame a sample, with gradient, and the state for the next: `encode` in training.

        Args:
            batch: as for `training_outputs`, of one frame; `has_prev` says whose history the state is.
            state: of the step before; None where no sample has a history.
        """

    def detection_loss(self, outputs: Outputs, ground_truth: Sequence[GroundTruth]) -> dict[str, Tensor]:
        """Named losses against the ground truth."""

    def head_weights(self) -> dict[str, Tensor]:
        """All weights behind the image maps, by key: for frozen copies, and for a student's head to start."""

    def start_from(self, kind: str, teacher: TeacherHead, *, image_scale: float) -> dict[str, Tensor]:
        """The weights of this head that start from a teacher's; nothing is loaded.

        Args:
            kind: one of STARTS.
            image_scale: factor from camera pixels to this detector's input pixels.

        Raises StartUnfit: the teacher's head does not fit.
        """

    def sampling_projections(self, weights: Mapping[str, Tensor]) -> list[nn.Linear]:
        """What a teacher of this family does to the BEV map before its queries sample it, layer by layer.

        Empty where queries read maps as they are, or there are none.
        """
