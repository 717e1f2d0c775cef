"""What every detector owes mmengine, done once through the seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from camera3d.boxes import BOXES_3D, BoxKind
from camera3d.detectors.history import History, QueueHistory
from camera3d.detectors.protocol import Detections, GroundTruth, Outputs, OutputSpec, TeacherHead
from camera3d.detectors.samples import ground_truth, with_detections
from camera3d.errors import StartUnfit


class CameraDetector(Base3DDetector):
    """A detector that has `class_names`, `inputs`, `output_specs`, `encode`, `decode` and `detection_loss`.

    See `camera3d.detectors.protocol.Detector` for what these are. A family without state, head weights or a
    start from a teacher needs nothing else.
    """

    numerics_version = 1
    class_names: tuple[str, ...]
    box_kind: BoxKind = BOXES_3D
    inputs: tuple[str, ...] = ("images", "lidar2img")
    training_inputs: tuple[str, ...] = ()
    has_state = False
    history: History = QueueHistory()
    config_parts: ClassVar[Mapping[str, Callable]] = {}
    """For each keyword of the constructor that is a dict of keywords: who takes them."""

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        """See Detector."""
        raise NotImplementedError

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """See Detector."""
        raise NotImplementedError

    def decode(self, outputs: Outputs) -> list[Detections]:
        """See Detector."""
        raise NotImplementedError

    def detection_loss(self, outputs: Outputs, ground_truth: Sequence[GroundTruth]) -> dict[str, Tensor]:
        """See Detector."""
        raise NotImplementedError

    def training_outputs(self, batch: Mapping[str, Tensor]) -> Outputs:
        """See Detector: here the last frame of each queue, seen by itself."""
        return self.encode({name: batch[name][:, -1] for name in self.inputs})[0]

    def streamed_outputs(self, batch: Mapping[str, Tensor], state: object) -> tuple[Outputs, object]:
        """See Detector: here what `encode` says of the frame."""
        return self.encode({name: batch[name][:, -1] for name in (*self.inputs, "has_prev")}, state)

    def head_weights(self) -> dict[str, Tensor]:
        """See Detector: here none."""
        return {}

    def start_from(self, kind: str, teacher: TeacherHead, *, image_scale: float) -> dict[str, Tensor]:
        """See Detector: here only `none`, which is nothing."""
        if kind != "none":
            raise StartUnfit([f"{type(self).__name__} has no head that could start from a teacher's"])
        return {}

    def sampling_projections(self, weights: Mapping[str, Tensor]) -> list[nn.Linear]:
        """See Detector: here none."""
        return []

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """Asked for by mmdet3d's base class, called by families that have image maps."""
        raise NotImplementedError

    def loss(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: list[Det3DDataSample], **kwargs
    ) -> dict[str, Tensor]:
        """mmengine's `loss` mode: the detection losses of a training batch."""
        outputs = self.history.outputs(self, batch_inputs_dict)
        return self.detection_loss(outputs, ground_truth(batch_data_samples))

    def predict(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: list[Det3DDataSample], **kwargs
    ) -> list[Det3DDataSample]:
        """mmengine's `predict` mode: the data samples with their detections, see `with_detections`."""
        return with_detections(batch_data_samples, self.decode(self.training_outputs(batch_inputs_dict)))

    def _forward(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: object = None, **kwargs
    ) -> Outputs:
        """mmengine's `tensor` mode: the raw outputs."""
        return self.training_outputs(batch_inputs_dict)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while. `train(True)` afterwards keeps frozen norms frozen."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
