"""Folders as trainings, evaluations and dumps leave them, of runs that detect what is annotated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache_schema.detections import detection_arrays
from cache_schema.inspection.dataset_tables import DETECTION_NAMES
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter
from camera3d.data import CLASS_NAMES

GOLDEN = Path(__file__).parent / "golden"


def annotations(dataroot: Path, version: str) -> dict[str, list[dict]]:
    """The annotations as entries of a results JSON, by sample token."""
    tables = {
        name: json.loads((dataroot / version / f"{name}.json").read_text())
        for name in ("sample", "sample_annotation", "instance", "category")
    }
    categories = {record["token"]: record["name"] for record in tables["category"]}
    names = {record["token"]: categories[record["category_token"]] for record in tables["instance"]}
    found = {record["token"]: [] for record in tables["sample"]}
    for number, record in enumerate(tables["sample_annotation"]):
        name = DETECTION_NAMES.get(names[record["instance_token"]])
        if name:
            box = {key: record[key] for key in ("sample_token", "translation", "size", "rotation")}
            box |= {"detection_name": name, "detection_score": round(0.9 - 0.01 * (number % 60), 2)}
            found[record["sample_token"]].append(box)
    return found


def leave_run(folder: Path, results, *, ap=0.5, terms=("loss_focal",), curves=True) -> Path:
    """A work folder as a training leaves it."""
    (folder / "validation").mkdir(parents=True)
    (folder / "validation/results_nusc.json").write_text(json.dumps({"meta": {}, "results": results}))
    metrics = {
        "nds": ap / 2,
        "mean_ap": ap,
        "tp_errors": dict.fromkeys(("mATE", "mASE", "mAOE", "mAVE", "mAAE"), 1 - ap),
        "per_class": [
            {"name": "car", "ap": ap, "tp_errors": {}},
            {"name": "bus", "ap": 0.25, "tp_errors": {}},
        ],
    }
    (folder / "validation/metrics.json").write_text(json.dumps(metrics))
    if curves:
        precision = {"car": {"2.0": [1.0, ap, 0.0]}}
        text = json.dumps({"recall": [0.0, 0.5, 1.0], "precision": precision})
        (folder / "validation/precision_recall.json").write_text(text)
    for number, first in enumerate((50, 100)):  # stopped after step 100, and resumed at 50
        log = folder / f"2026010{number}_000000/vis_data/scalars.json"
        log.parent.mkdir(parents=True)
        lines = []
        for step in (first, first + 50):
            losses = dict.fromkeys(("loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"), step / 100)
            losses |= dict.fromkeys(terms, 10.0 * number + step)
            lines.append({"loss": step, **losses, "lr": 0.1, "step": step})
        lines.append({"NDS": ap / 2, "mAP": ap, "step": number + 1})
        log.write_text("\n".join(map(json.dumps, lines)) + '\n{"loss": 1')
    return folder


def leave_store(path: Path, frames, version: str = "v1.0-mini") -> Path:
    """A store of frames of one scene, whose teacher detects what is annotated; other order of classes."""
    spec = TargetReader(GOLDEN / "store-v2-exact").spec
    class_names = CLASS_NAMES[::-1]
    outputs = replace(spec.outputs, class_names=class_names)
    dataset = replace(spec.dataset, version=version)
    spec = replace(spec, arrays=detection_arrays(), outputs=outputs, dataset=dataset, profile="exact")
    writer = StoreWriter.create(path, spec)
    samples = [(frame.sample_token, frame.timestamp_us) for frame in frames]
    with writer.scene(frames[0].scene_name, frames[0].scene_token, samples) as scene:
        for frame in frames:
            labels = [class_names.index(frame.class_names[label]) for label in frame.gt_labels]
            values = {
                "detection_boxes": np.nan_to_num(frame.gt_boxes).astype(np.float32),
                "detection_scores": np.linspace(0.9, 0.1, len(labels), dtype=np.float32),
                "detection_labels": np.array(labels, np.int16),
            }
            scene.append(frame.sample_token, values)
    return path
