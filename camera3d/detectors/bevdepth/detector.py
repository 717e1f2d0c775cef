"""BEVDepth as a detector: one or two key frames in, boxes out.

Shapes: B batch, T frames of a queue, N cameras, C channels, H W image size, h w map size, Y X BEV cells.
Source: Li et al., BEVDepth, AAAI 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from camera3d.boxes import move_boxes
from camera3d.checkpoint import Checkpoint
from camera3d.detectors.base import CameraDetector
from camera3d.detectors.bevdepth.builder import build_bev_head, build_lift
from camera3d.detectors.bevdepth.criterion import BEVDepthCriterion
from camera3d.detectors.bevdepth.decode import BevGrid, DecodeRule, decode_tasks
from camera3d.detectors.bevdepth.head import BRANCHES, HEATMAP, task_output
from camera3d.detectors.bevdepth.rig import Rig
from camera3d.detectors.bevdepth.start import head_start
from camera3d.detectors.bevdepth.targets import depth_bins, task_targets
from camera3d.detectors.protocol import (
    BEV_MAP,
    DENSE_HEAD,
    IMAGE_MAP,
    Detections,
    GroundTruth,
    Outputs,
    OutputSpec,
    TeacherHead,
)
from camera3d.errors import CheckpointMismatch, ConfigInvalid, ShapeMismatch

STRIDE = 16
# The depth in metres of the pixels that the LiDAR hits, (B, N, H, W): read in training alone.
LIDAR_DEPTH, DEPTH_TARGET = "lidar_depth", "depth_target"
# What moves the BEV map against the ego frame, (B, 4, 4): read in training alone.
BEV_TRANSFORM = "bev_transform"
IMAGE_PARTS = ("backbone.img_backbone.", "backbone.img_neck.")
GRID_BUFFERS = ("voxel_size", "voxel_coord", "voxel_num", "frustum")
EGO_FRAMES = ("mean", "camera")


class Seen(NamedTuple):
    """What the next frame of a scene needs of this one: image features and where they were taken from."""

    feats: Tensor
    cam2ego: Tensor
    cam_ego2global: Tensor
    intrinsics: Tensor
    image_transform: Tensor


@MODELS.register_module()
class BEVDepth(CameraDetector):
    """Camera-only detector that lifts image features by a depth distribution. Its maps are in the ego frame.

    Args:
        img_backbone: config of a ResNet with four stages out.
        class_names: in the order of the tasks.
        tasks: classes of each group that shares a head.
        image_hw: of the network's input; the frustum is a part of the weights.
        point_cloud_range: x, y, z minimum, then maximum, of the BEV map, metres of the ego frame.
        voxel_size_m: of a cell along x, y, z.
        depth_bins_m: first bin, end and step.
        context_channels: of what is lifted; the others are widths of the parts, see builder.py.
        key_frames: 1, or 2 for the key frame and the one before.
        depth_aggregation: whether lifted features pass a small net before they are pooled.
        ego_frame: whose pose the cameras are placed in. `mean`: of the six moments at which the cameras
            fired, which is where the boxes are. `camera`: each of its own moment, taken for one and the
            same; the released weights were trained so.
        heatmap_bias: start of the class logits; None leaves PyTorch's default, as the released training did.
        decode_rule: keywords of DecodeRule.
        criterion: keywords of BEVDepthCriterion.
    """

    numerics_version = 1
    config_parts: ClassVar = {"decode_rule": DecodeRule, "criterion": BEVDepthCriterion}

    def __init__(
        self,
        *,
        img_backbone: dict,
        class_names: Sequence[str],
        tasks: Sequence[int],
        image_hw: Sequence[int],
        point_cloud_range: Sequence[float],
        voxel_size_m: Sequence[float] = (0.8, 0.8, 8.0),
        depth_bins_m: Sequence[float] = (2.0, 58.0, 0.5),
        context_channels: int = 80,
        neck_channels: int = 128,
        depth_channels: int = 512,
        trunk_channels: int = 160,
        bev_neck_channels: int = 64,
        key_frames: int = 1,
        depth_aggregation: bool = False,
        ego_frame: str = "mean",
        num_cameras: int = 6,
        heatmap_bias: float | None = -2.19,
        decode_rule: dict | None = None,
        criterion: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        _check_options(class_names, tasks, image_hw, key_frames, ego_frame)
        self.class_names, self.tasks = tuple(class_names), tuple(tasks)
        self.image_hw, self.num_cameras = tuple(image_hw), num_cameras
        self.point_cloud_range = tuple(float(edge) for edge in point_cloud_range)
        self.key_frames, self.ego_frame = key_frames, ego_frame
        self.has_state = key_frames > 1
        self.depth_bins_m = tuple(depth_bins_m)
        self.inputs = ("images", "image_transform", "intrinsics", "cam2ego", "lidar2ego")
        if key_frames > 1 or ego_frame == "mean":
            self.inputs += ("cam_ego2global",)
        if ego_frame == "mean":
            self.inputs += ("ego2global",)
        self.backbone = build_lift(
            img_backbone=img_backbone,
            image_hw=self.image_hw,
            point_cloud_range=self.point_cloud_range,
            voxel_size_m=voxel_size_m,
            depth_bins_m=self.depth_bins_m,
            context_channels=context_channels,
            neck_channels=neck_channels,
            depth_channels=depth_channels,
            depth_aggregation=depth_aggregation,
        )
        self.head = build_bev_head(
            in_channels=key_frames * context_channels,
            trunk_channels=trunk_channels,
            neck_channels=bev_neck_channels,
            tasks=self.tasks,
            heatmap_bias=heatmap_bias,
        )
        self.widths = {
            "pv": 4 * neck_channels,
            "lifted": key_frames * context_channels,
            "bev": 4 * bev_neck_channels,
        }
        self.grid = BevGrid(cell_m=tuple(voxel_size_m[:2]), low_m=self.point_cloud_range[:2])
        self.decode_rule = DecodeRule(**(decode_rule or {}))
        self.criterion = BEVDepthCriterion(**(criterion or {}))
        self.training_inputs = (BEV_TRANSFORM, *((LIDAR_DEPTH,) if self.criterion.depth_weight else ()))

    def own_form(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """The weights, when they were trained on this grid and frustum.

        Raises CheckpointMismatch: those in the checkpoint are others.
        """
        own = self.state_dict()
        other = [
            key
            for key in (f"backbone.{name}" for name in GRID_BUFFERS)
            if not torch.allclose(checkpoint.weights[key].to(own[key]).float(), own[key].float(), rtol=1e-3)
        ]
        if other:
            raise CheckpointMismatch(
                f"{checkpoint.source} was trained with another {' and '.join(other)} than the config's:"
                " compare point_cloud_range, voxel_size_m, depth_bins_m and image_hw. Nothing was loaded."
            )
        return {**checkpoint.weights, **{f"backbone.{n}": own[f"backbone.{n}"] for n in GRID_BUFFERS}}

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        """See Detector. All maps lie in the ego frame; detections are given in the LiDAR frame."""
        pv_hw = tuple(side // STRIDE for side in image_hw)
        width, height, _ = self.backbone.grid_xyz
        bev = {"role": BEV_MAP, "extent_m": self.point_cloud_range, "frame": "ego"}
        bins = len(self.backbone.frustum)
        pv_yx, bev_yx = ("pv_0_y", "pv_0_x"), ("bev_y", "bev_x")
        specs = [
            OutputSpec(
                name="pv_feats_0",
                role=IMAGE_MAP,
                shape=(self.num_cameras, self.widths["pv"], *pv_hw),
                dimension_names=("camera", "pv_channel", *pv_yx),
                stride=STRIDE,
            ),
            OutputSpec(
                name="depth_distribution",
                role=DENSE_HEAD,
                shape=(self.num_cameras, bins, *pv_hw),
                dimension_names=("camera", "depth_bin", *pv_yx),
            ),
            # The encoded map comes first: it is the one that the head reads, and that terms compare.
            OutputSpec(
                name="bev_feats",
                shape=(self.widths["bev"], height, width),
                dimension_names=("bev_channel", *bev_yx),
                **bev,
            ),
            OutputSpec(
                name="bev_lifted",
                shape=(self.widths["lifted"], height, width),
                dimension_names=("lifted_channel", *bev_yx),
                **bev,
            ),
        ]
        for number, classes in enumerate(self.tasks):
            for branch, numbers in {**BRANCHES, HEATMAP: classes}.items():
                name = task_output(number, branch)
                specs.append(
                    OutputSpec(
                        name=name,
                        role=DENSE_HEAD,
                        shape=(numbers, height, width),
                        dimension_names=(f"{name}_number", *bev_yx),
                    )
                )
        return tuple(specs)

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """See Detector.

        With two key frames the state is the frame before. Where there is none, or `has_prev` (B,) bool in a
        frame is false, the key frame takes its place. `bev_transform` (B, 4, 4) in a frame moves the BEV map
        against the ego frame.

        Raises:
            ShapeMismatch: the images are not those of `num_cameras` cameras and of `image_hw`, or a matrix is
                not theirs.
        """
        self._check(frame)
        feats = self.backbone.image_features(frame["images"])
        return self._outputs(frame, feats, state), self._seen(frame, feats)

    def training_outputs(self, batch: Mapping[str, Tensor]) -> Outputs:
        """See Detector. No gradient reaches the earlier frame, but BatchNorm counts its statistics."""
        last = {name: values[:, -1] for name, values in batch.items()}
        self._check(last)
        feats = self.backbone.image_features(last["images"])
        earlier = None
        if self.key_frames > 1 and batch["images"].shape[1] > 1:
            with torch.no_grad():
                before = {name: batch[name][:, -2] for name in self.inputs}
                earlier = self._seen(before, self.backbone.image_features(before["images"]))
        return self._outputs(last, feats, earlier) | self._depth_target(batch)

    def streamed_outputs(self, batch: Mapping[str, Tensor], state: object) -> tuple[Outputs, object]:
        """See Detector. Every frame passes the image half once, with gradient."""
        read = (*self.inputs, BEV_TRANSFORM, "has_prev")
        outputs, state = self.encode({name: batch[name][:, -1] for name in read if name in batch}, state)
        return {**outputs, **self._depth_target(batch)}, state

    def _depth_target(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the depth of the last frames is trained to be, where the batch has the LiDAR's."""
        if LIDAR_DEPTH not in batch:
            return {}
        return {DEPTH_TARGET: depth_bins(batch[LIDAR_DEPTH][:, -1], STRIDE, self.depth_bins_m)}

    def _outputs(self, frame: Mapping[str, Tensor], feats: Tensor, earlier: Seen | None) -> dict[str, Tensor]:
        rig = self._rig(frame)
        lifted, depth = self.backbone(feats, rig, rig)
        if self.key_frames > 1:
            with torch.no_grad():
                then = self._earlier(frame, feats, earlier)
                before = self.backbone(then.feats, self._rig(frame, then), rig).bev
            lifted = torch.cat((lifted, before), dim=1)
        bev = self.head.encode(lifted)
        return {
            "pv_feats_0": feats,
            "depth_distribution": depth,
            "bev_feats": bev,
            "bev_lifted": lifted,
            **self.head(bev),
            "lidar2ego": frame["lidar2ego"],
        }

    def _seen(self, frame: Mapping[str, Tensor], feats: Tensor) -> Seen | None:
        if self.key_frames == 1:
            return None
        names = ("cam2ego", "cam_ego2global", "intrinsics", "image_transform")
        return Seen(feats.detach(), *(frame[name] for name in names))

    def _earlier(self, frame: Mapping[str, Tensor], feats: Tensor, earlier: Seen | None) -> Seen:
        """The frame before; the key frame itself where its scene starts."""
        key = self._seen(frame, feats)
        if earlier is None or "has_prev" not in frame:
            return key if earlier is None else earlier
        there = frame["has_prev"]
        chosen = [
            torch.where(there.view(-1, *(1,) * (values.dim() - 1)), before, values)
            for before, values in zip(earlier, key, strict=True)
        ]
        return Seen(*chosen)

    def _rig(self, frame: Mapping[str, Tensor], earlier: Seen | None = None) -> Rig:
        """The cameras of the frame, or of an earlier one as the ego of this frame sees them."""
        cam2ego = frame["cam2ego"] if earlier is None else earlier.cam2ego
        sensor2ego = cam2ego.double()
        if self.ego_frame == "mean" or earlier is not None:
            then = frame["cam_ego2global"] if earlier is None else earlier.cam_ego2global
            if self.ego_frame == "mean":
                now = frame["ego2global"].double()[:, None]
            else:
                now = frame["cam_ego2global"].double()
            sensor2ego = torch.linalg.inv_ex(now).inverse @ then.double() @ sensor2ego
        own = frame if earlier is None else earlier._asdict()
        bev_transform = frame.get(BEV_TRANSFORM)
        if bev_transform is None:
            bev_transform = torch.eye(4, dtype=torch.float64, device=sensor2ego.device).expand(
                len(sensor2ego), 4, 4
            )
        return Rig(sensor2ego, own["intrinsics"], own["image_transform"], bev_transform)

    def decode(self, outputs: Outputs) -> list[Detections]:
        """Boxes in the LiDAR frame, see `decode_ego`."""
        return [
            Detections(
                boxes=move_boxes(found.boxes, torch.linalg.inv_ex(lidar2ego.double()).inverse),
                scores=found.scores,
                labels=found.labels,
            )
            for found, lidar2ego in zip(self.decode_ego(outputs), outputs["lidar2ego"], strict=True)
        ]

    def decode_ego(self, outputs: Outputs) -> list[Detections]:
        """Boxes in the frame of the BEV map, see `decode_tasks`."""
        tasks = [self._task_maps(outputs, number) for number in range(len(self.tasks))]
        return decode_tasks(tasks, self.tasks, self.grid, self.decode_rule)

    def _task_maps(self, outputs: Outputs, number: int) -> dict[str, Tensor]:
        return {branch: outputs[task_output(number, branch)] for branch in (*BRANCHES, HEATMAP)}

    def detection_loss(self, outputs: Outputs, ground_truth: Sequence[GroundTruth]) -> dict[str, Tensor]:
        """See Detector: losses of every task, and of the depth of the key frame.

        Raises ConfigInvalid: the depth is to be trained, and the outputs are of a batch without LiDAR.
        """
        truths = [
            GroundTruth(move_boxes(truth.boxes, lidar2ego), truth.labels)
            for truth, lidar2ego in zip(ground_truth, outputs["lidar2ego"], strict=True)
        ]
        losses, first = {}, 0
        for number, classes in enumerate(self.tasks):
            maps, labels = self._task_maps(outputs, number), range(first, first + classes)
            map_hw = tuple(maps[HEATMAP].shape[-2:])
            targets = [task_targets(truth, labels, self.grid, map_hw) for truth in truths]
            found = self.criterion.task_losses(maps, targets)
            losses |= {f"task{number}.{name}": value for name, value in found.items()}
            first += classes
        if self.criterion.depth_weight:
            if DEPTH_TARGET not in outputs:
                raise ConfigInvalid(
                    "the depth cannot be trained without the LiDAR's: set lidar_depth=True in the config, or"
                    " model.criterion=dict(depth_weight=0)"
                )
            losses["loss_depth"] = self.criterion.depth_loss(
                outputs["depth_distribution"], outputs[DEPTH_TARGET]
            )
        return losses

    def head_weights(self) -> dict[str, Tensor]:
        """See Detector."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(IMAGE_PARTS)}

    def start_from(self, kind: str, teacher: TeacherHead, *, image_scale: float) -> dict[str, Tensor]:
        """See Detector and `head_start`."""
        return {} if kind == "none" else head_start(kind, teacher.weights, self.head_weights())

    def _check(self, frame: Mapping[str, Tensor]) -> None:
        images = frame["images"]
        faults = []
        expected = (self.num_cameras, 3, *self.image_hw)
        if images.dim() != 5 or images.shape[1:] != expected:
            faults.append(f"images: expected (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        for name in ("image_transform", "intrinsics", "cam2ego"):
            wanted = (len(images), self.num_cameras, 4, 4)
            if frame[name].shape != wanted:
                faults.append(f"{name}: expected {wanted}, got {tuple(frame[name].shape)}")
        if faults:
            raise ShapeMismatch(
                "BEVDepth's frustum belongs to one size of images (model.image_hw and inputs.pad_hw of the"
                " config): " + "; ".join(faults)
            )


def _check_options(
    class_names: Sequence[str],
    tasks: Sequence[int],
    image_hw: Sequence[int],
    key_frames: int,
    ego_frame: str,
) -> None:
    faults = []
    if sum(tasks) != len(class_names):
        faults.append(f"tasks: {list(tasks)} hold {sum(tasks)} classes, class_names {len(class_names)}")
    if any(side % (2 * STRIDE) for side in image_hw):
        faults.append(f"image_hw: expected multiples of {2 * STRIDE}, got {tuple(image_hw)}")
    if key_frames not in (1, 2):
        faults.append(f"key_frames: expected 1 or 2, got {key_frames!r}")
    if ego_frame not in EGO_FRAMES:
        faults.append(f"ego_frame: expected one of {', '.join(EGO_FRAMES)}, got {ego_frame!r}")
    if faults:
        raise ConfigInvalid("model of the config cannot work: " + "; ".join(faults))
