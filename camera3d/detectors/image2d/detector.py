"""Any detector of mmdet 3 with a feature pyramid, behind the seam.

Nothing here is about one detector. What all of mmdet's have in common is used: `extract_feat` gives the
pyramid, and `loss` and `predict` call it first. What is special is one class of theirs, DetectionTransformer,
whose queries are outputs too.

Shapes: B batch, C channels, H W input size, h w map size, L decoder layers, Q object queries, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from camera3d.boxes import BOXES_2D
from camera3d.detectors.base import CameraDetector
from camera3d.detectors.image2d.samples import data_samples, detections, total
from camera3d.detectors.protocol import (
    IMAGE_MAP,
    QUERY,
    Detections,
    GroundTruth,
    Outputs,
    OutputSpec,
    TeacherHead,
)
from camera3d.errors import ConfigInvalid, StartUnfit

WRAPPED = "detector."
BEHIND_THE_MAPS = ("backbone.", "neck.")  # what is not the head
CLASS_HEADS = ("bbox_head", "mask_head")


@MODELS.register_module()
class MMDetDetector(CameraDetector):
    """A detector of mmdet, on pictures that are padded to one size.

    Its weights have mmdet's own keys, so that checkpoints go in both directions as they are.

    Args:
        detector: `model` of an mmdet config. Images come prepared: its `data_preprocessor` is not used. In a
            config file, `config` names one that mmdet comes with, and the other keys are put into it.
        class_names: order of the labels, as many as its heads have classes.
        pv_strides: input pixels a cell of each map of its neck, finest first.
        pv_channels: of each of these maps.
    """

    box_kind = BOXES_2D
    inputs = ("images", "image_hw", "valid_hw")

    def __init__(
        self,
        *,
        detector: dict,
        class_names: Sequence[str],
        pv_strides: Sequence[int],
        pv_channels: int = 256,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.class_names, self.pv_strides = tuple(class_names), tuple(pv_strides)
        self.pv_channels = pv_channels
        with DefaultScope.overwrite_default_scope("mmdet"):
            self.detector = MMDET_MODELS.build(detector | {"data_preprocessor": None})
        self._require_classes()
        self._register_state_dict_hook(_without_wrapper)
        self.register_load_state_dict_pre_hook(_with_wrapper)

    @staticmethod
    def resolved(model: dict) -> dict:
        """`model` of a config with the mmdet config that `detector` names written out.

        Raises ConfigInvalid when mmdet has no such config.
        """
        detector = model.get("detector")
        if not isinstance(detector, dict):
            return model
        # mmengine notes where a base of another package came from; here it is clear.
        own = {name: value for name, value in detector.items() if name not in ("config", "_scope_")}
        if "config" not in detector:
            return model | {"detector": own}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
                whole = get_config(detector["config"]).model.to_dict()
        except (AssertionError, OSError, ValueError, AttributeError, TypeError) as error:
            raise ConfigInvalid(
                f"model.detector.config {detector['config']!r}: mmdet has no such config ({error}). Name"
                " one as in mmdet::gfl/gfl_r50_fpn_1x_coco.py."
            ) from error
        try:
            return model | {"detector": Config._merge_a_into_b(own, whole)}
        except (TypeError, KeyError, IndexError) as error:
            raise ConfigInvalid(f"model.detector does not fit {detector['config']}: {error}") from error

    @property
    def has_queries(self) -> bool:
        """Whether there are object queries with a logit for each class and none for the background."""
        head = getattr(self.detector, "bbox_head", None)
        return isinstance(self.detector, DetectionTransformer) and head.loss_cls.use_sigmoid

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        """See Detector."""
        maps = [
            OutputSpec(
                name=f"pv_feats_{level}",
                role=IMAGE_MAP,
                # Every halving rounds up, as convolutions with stride 2 and padding do.
                shape=(1, self.pv_channels, -(-image_hw[0] // stride), -(-image_hw[1] // stride)),
                dimension_names=("camera", "channel", f"pv_{level}_y", f"pv_{level}_x"),
                stride=stride,
            )
            for level, stride in enumerate(self.pv_strides)
        ]
        if not self.has_queries:
            return tuple(maps)
        per_query = (self.detector.decoder.num_layers, self.detector.num_queries)
        numbers = {"query_logits": len(self.class_names), "query_boxes": BOXES_2D.numbers}
        names = {"query_logits": "class", "query_boxes": "box_code"}
        queries = [
            OutputSpec(
                name=name,
                role=QUERY,
                shape=(*per_query, number),
                dimension_names=("layer", "query", names[name]),
                dtype="float16" if name == "query_logits" else "float32",
            )
            for name, number in numbers.items()
        ]
        return (*maps, *queries)

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """See Detector: the pyramid, in eval mode the queries, and the sizes that `decode` needs.

        In training the queries come with the loss, as some learn from disturbed ground truth:
        `detection_loss` adds them to the outputs.

        Raises ConfigInvalid for a size that is no multiple of the finest stride, and for maps that are not as
        `output_specs` says.
        """
        feats = self.detector.extract_feat(frame["images"][:, 0])
        self._require_maps(feats, frame["images"].shape[-2:])
        outputs = {f"pv_feats_{level}": feats_BCHW[:, None] for level, feats_BCHW in enumerate(feats)}
        outputs |= {name: frame[name] for name in ("image_hw", "valid_hw")}
        if self.has_queries and not self.training:
            head_inputs = self.detector.forward_transformer(feats, self._samples(outputs))
            outputs |= self._named_queries(self.detector.bbox_head(**head_inputs))
        return outputs, None

    def decode(self, outputs: Outputs) -> list[Detections]:
        """See Detector: what mmdet reports, in pixels of the pictures."""
        samples = self._samples(outputs)
        if self.has_queries:
            logits, boxes = (
                outputs[name].transpose(0, 1).float() for name in ("query_logits", "query_boxes")
            )
            found = self.detector.bbox_head.predict_by_feat(
                logits, boxes, batch_img_metas=[sample.metainfo for sample in samples], rescale=True
            )
            return [detections(one) for one in found]
        with self._given(self._pyramid(outputs, torch.float32)):
            predicted = self.detector.predict(None, samples, rescale=True)
        return [detections(sample.pred_instances) for sample in predicted]

    def detection_loss(self, outputs: Outputs, ground_truth: Sequence[GroundTruth]) -> dict[str, Tensor]:
        """mmdet's own losses, a number each; see `encode` for the queries."""
        samples = self._samples(outputs, ground_truth)
        with self._given(self._pyramid(outputs)), self._queries_added_to(outputs):
            losses = self.detector.loss(None, samples)
        return {name: total(loss) for name, loss in losses.items() if "loss" in name}

    def head_weights(self) -> dict[str, Tensor]:
        """All weights but those of backbone and neck, by mmdet's keys."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(BEHIND_THE_MAPS)}

    def start_from(self, kind: str, teacher: TeacherHead, *, image_scale: float) -> dict[str, Tensor]:
        """See Detector: `head` takes all of the teacher's head, which must be of the same kind and width."""
        if kind == "none":
            return {}
        if kind != "head":
            raise StartUnfit([f"init_from_teacher={kind!r}: a detector of mmdet takes 'head' or 'none'"])
        own, given = self.head_weights(), teacher.weights
        faults = [
            f"{key}: {_shape(own, key)} in the student, {_shape(given, key)} in the teacher"
            for key in sorted({*own, *given})
            if _shape(own, key) != _shape(given, key)
        ]
        if faults:
            raise StartUnfit(faults)
        return {key: given[key].to(own[key].dtype).clone() for key in own}

    def _samples(self, outputs: Outputs, truths: Sequence[GroundTruth] | None = None) -> list:
        height, width = outputs["pv_feats_0"].shape[-2:]
        stride = self.pv_strides[0]
        return data_samples(outputs, (height * stride, width * stride), truths)

    def _pyramid(self, outputs: Outputs, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
        maps = (outputs[f"pv_feats_{level}"][:, 0] for level in range(len(self.pv_strides)))
        return tuple(feats if dtype is None else feats.to(dtype) for feats in maps)

    def _named_queries(self, predicted: Sequence[Tensor]) -> dict[str, Tensor]:
        """(B, L, Q, …) of what a head gives, (L, B, Q, …); queries for denoising, if any, come before Q."""
        logits, boxes = (
            values[:, :, -self.detector.num_queries :].transpose(0, 1) for values in predicted[:2]
        )
        return {"query_logits": logits, "query_boxes": boxes}

    @contextmanager
    def _given(self, feats: tuple[Tensor, ...]) -> Iterator[None]:
        """mmdet's detector takes these for the pyramid of whatever images it is shown."""
        self.detector.extract_feat = lambda images: feats
        try:
            yield
        finally:
            del self.detector.extract_feat

    @contextmanager
    def _queries_added_to(self, outputs: dict[str, Tensor]) -> Iterator[None]:
        if not self.has_queries:
            yield
            return

        def add(head: nn.Module, inputs: object, predicted: Sequence[Tensor]) -> None:
            outputs.update(self._named_queries(predicted))

        hook = self.detector.bbox_head.register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()

    def _require_classes(self) -> None:
        wrong = {
            f"{name}.num_classes is {module.num_classes}"
            for name, module in self.detector.named_modules()
            if any(head in name for head in CLASS_HEADS)
            and getattr(module, "num_classes", None) not in (None, len(self.class_names))
        }
        if wrong:
            raise ValueError(
                f"class_names has {len(self.class_names)} names, and {', '.join(sorted(wrong))} in `detector`"
            )

    def _require_maps(self, feats: Sequence[Tensor], input_hw: Sequence[int]) -> None:
        if any(side % self.pv_strides[0] for side in input_hw):
            raise ConfigInvalid(
                f"inputs.pad_hw {tuple(input_hw)}: expected multiples of the finest stride,"
                f" {self.pv_strides[0]}"
            )
        wanted = [spec.shape[1:] for spec in self.output_specs(tuple(input_hw)) if spec.role == IMAGE_MAP]
        found = [tuple(feats_BCHW.shape[1:]) for feats_BCHW in feats]
        if found != wanted:
            raise ConfigInvalid(
                f"{type(self.detector).__name__}: its neck gives maps {found}, and pv_strides"
                f" {self.pv_strides} with pv_channels {self.pv_channels} say {wanted}, as (channels, height,"
                " width). Set both in `model`."
            )


def _shape(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(weights[key].shape) if key in weights else None


def _without_wrapper(module: nn.Module, state: dict, prefix: str, metadata: object) -> None:
    """Of a state dict: the keys as mmdet has them."""
    for key in [key for key in state if key.startswith(prefix + WRAPPED)]:
        state[prefix + key[len(prefix) + len(WRAPPED) :]] = state.pop(key)


def _with_wrapper(module: nn.Module, state: dict, prefix: str, *_: object) -> None:
    """Of a state dict that is loaded: the keys as this module has them."""
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(prefix + WRAPPED)]:
        state[prefix + WRAPPED + key[len(prefix) :]] = state.pop(key)
