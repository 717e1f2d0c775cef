"""A store that detects what is annotated, so that pictures of it can be told right from wrong."""

from dataclasses import replace

import numpy as np
from store_cases import about, small_spec

from cache_schema.detections import detection_arrays
from cache_schema.spec import ArraySpec, InputFacts
from cache_schema.writer import StoreWriter


def ground_truth_store(path, frame, scale):
    """A store whose detections are a frame's ground truth in range; returns these boxes (n, 9)."""
    from camera3d.boxes import BOX_CONVENTION
    from camera3d.data import CAMERA_NAMES, CLASS_NAMES

    near = (np.abs(frame.gt_boxes[:, :2]) < 51.2).all(axis=1)
    truth = np.nan_to_num(frame.gt_boxes[near])
    query_logits = np.full((1, len(truth), len(CLASS_NAMES)), -6, np.float16)
    query_logits[0, np.arange(len(truth)), frame.gt_labels[near]] = np.linspace(3, 0, len(truth))
    rng = np.random.default_rng(0)
    height, width = (int(side * scale) for side in frame.image_hw)
    values = {
        "pv_feats_0": rng.normal(size=(6, 8, -(-height // 8), -(-width // 8))).astype(np.float16),
        "bev_feats": rng.normal(size=(8, 20, 20)).astype(np.float16),
        "query_logits": query_logits,
        "sampling_locations": rng.random((1, len(truth), 2, 1, 4, 2)).astype(np.float32),
        "attention_weights": np.full((1, len(truth), 2, 1, 4), 0.25, np.float16),
        "lidar2img": np.diag([scale, scale, 1, 1]) @ frame.lidar2img,
    }
    detections = {
        "detection_boxes": truth.astype(np.float32),
        "detection_scores": (1 / (1 + np.exp(-np.linspace(3, 0, len(truth))))).astype(np.float32),
        "detection_labels": frame.gt_labels[near].astype(np.int16),
    }
    names = {
        "pv_feats_0": ("camera", "channel", "pv_0_y", "pv_0_x"),
        "bev_feats": ("channel", "bev_y", "bev_x"),
        "query_logits": ("layer", "query", "class"),
        "sampling_locations": ("layer", "query", "head", "bev_level", "point", "xy"),
        "attention_weights": ("layer", "query", "head", "bev_level", "point"),
        "lidar2img": ("camera", "image_row", "lidar_column"),
    }
    spec = replace(
        small_spec(),
        arrays=tuple(
            ArraySpec(
                name=name,
                **about(name),
                dtype=str(values[name].dtype),
                shape=values[name].shape,
                dimension_names=names[name],
                compressed=False,
            )
            for name in names
        )
        + detection_arrays(),
        inputs=InputFacts(
            camera_order=CAMERA_NAMES, image_shape=(height, width), pipeline={"scale": scale}, present={}
        ),
        outputs=replace(small_spec().outputs, class_names=CLASS_NAMES, box_convention=BOX_CONVENTION),
    )
    writer = StoreWriter.create(path, spec)
    samples = [(frame.sample_token, frame.timestamp_us)]
    with writer.scene(frame.scene_name, frame.scene_token, samples) as scene:
        scene.append(frame.sample_token, values | detections)
    return truth
