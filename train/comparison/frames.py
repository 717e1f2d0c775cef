"""The frames that the page shows: the same for every run, with what each detected and what is annotated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache_schema.errors import CacheError
from cache_schema.inspection.camera_panels import CAMERAS
from cache_schema.inspection.dataset_tables import DETECTION_NAMES, DatasetTables, GroundTruth
from cache_schema.inspection.sample import read_sample
from cache_schema.pages.choice import chosen_samples
from cache_schema.pages.escape import numbers
from cache_schema.pages.rasters import photo_uri
from train.comparison.results import ResultsJson
from train.comparison.runs import NotARun, Run

CLASS_NAMES = tuple(dict.fromkeys(DETECTION_NAMES.values()))
REACH_M, _STEP_M = 51.2, 6.4  # as far as nuScenes scores; less, in steps, when nothing is detected there
_MOST_BOXES = 100  # of a frame and run, the surest
_PHOTO_WIDTH = 480


@dataclass(frozen=True)
class Found:
    """Boxes of a sample, best first: (n, 7) in the LiDAR frame, scores and labels (n,) of CLASS_NAMES."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Gallery:
    """What the page's script draws.

    Attributes:
        frames: of each its token, scene and seconds since the scene's first; truth; cameras; `found`, one
            entry a run, None when it has not seen the frame.
        range_m: x, y, z from and to of the view from above, in metres.
    """

    frames: Sequence[Mapping[str, Any]] = ()
    range_m: tuple[float, ...] = (-REACH_M, -REACH_M, -5.0, REACH_M, REACH_M, 3.0)


class Detections:
    """What a run detected, by sample token. Raises CacheError when its results cannot be read."""

    def __init__(self, run: Run) -> None:
        self._run, self.of_store = run, run.reader is not None
        self._results = None if run.results is None else ResultsJson(run.results)
        self.tokens = frozenset(run.reader.sample_tokens) if self.of_store else frozenset()
        if self._results is not None:
            self.tokens = self._results.tokens

    def of(self, token: str, tables: DatasetTables) -> Found | None:
        """None when the run has not seen the sample."""
        if token not in self.tokens:
            return None
        if self.of_store:
            return _of_store(self._run, token)
        try:
            raw = sorted(self._results[token], key=lambda box: -box["detection_score"])[:_MOST_BOXES]
            labels = [CLASS_NAMES.index(box["detection_name"]) for box in raw]
            scores = np.array([box["detection_score"] for box in raw], float)
        except (KeyError, TypeError, ValueError) as error:
            raise NotARun(
                f"{self._run.results}, sample {token}: a box is not as it should be: {error!r}"
            ) from None
        return Found(tables.in_lidar_frame(token, raw), scores, np.array(labels, int))


def gallery_of(
    runs: Sequence[Run],
    tables: DatasetTables,
    n_frames: int,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> Gallery:
    """Some frames, which as many runs as possible have seen.

    Raises CacheError when the dataset has none of the runs' samples, or is not as it should be.
    """
    detected = [Detections(run) for run in runs]
    scenes = tables.scenes(_held_out(detected))
    if not scenes:
        raise CacheError(
            f"{tables.dataroot}, {tables.version} has none of the samples of {runs[0].path}: name the dataset"
            " that the runs were evaluated on"
        )
    start_us = {name: samples[0][1] for name, samples in scenes.items()}
    known = {token: (name, us) for name, samples in scenes.items() for token, us in samples}
    chosen = chosen_samples({name: [t for t, _ in samples] for name, samples in scenes.items()}, n_frames)
    tokens = [token for group in chosen.values() for token in group]
    found = {token: [detections.of(token, tables) for detections in detected] for token in tokens}
    reach_m = _reach_m([boxes for frame in found.values() for boxes in frame if boxes is not None])
    frames = []
    for token in progress(tokens):
        scene, time_us = known[token]
        frames.append(
            {
                "token": token,
                "scene": scene,
                "seconds": round((time_us - start_us[scene]) / 1e6, 2),
                "truth": _near(tables.ground_truth(token, CLASS_NAMES), reach_m),
                "cameras": _cameras(token, tables),
                "found": [None if boxes is None else _facts(boxes) for boxes in found[token]],
            }
        )
    return Gallery(frames, (-reach_m, -reach_m, -5.0, reach_m, reach_m, 3.0))


def _held_out(detected: Sequence[Detections]) -> frozenset[str]:
    """The samples that all runs with detections share, or, where there is none, those of the first one."""
    seen = [found for found in detected if found.tokens]
    # A teacher's store may be of the split that is trained on: the others are then compared without it.
    for among in (seen, [found for found in seen if not found.of_store], seen[:1]):
        if among and (shared := frozenset.intersection(*(found.tokens for found in among))):
            return shared
    return frozenset()


def _of_store(run: Run, token: str) -> Found:
    """Detections of classes that nuScenes does not score are left out."""
    sample = read_sample(run.reader, token, 0.0)
    names = run.reader.spec.outputs.class_names
    if sample.boxes is None:
        return Found(np.zeros((0, 7)), np.zeros(0), np.zeros(0, int))
    rows = [row for row, label in enumerate(sample.boxes.labels) if names[label] in CLASS_NAMES][:_MOST_BOXES]
    labels = [CLASS_NAMES.index(names[label]) for label in sample.boxes.labels[rows]]
    return Found(sample.boxes.boxes[rows, :7], sample.boxes.scores[rows], np.array(labels, int))


def _reach_m(found: Sequence[Found]) -> float:
    """How far ahead and to the side the farthest box is."""
    farthest = max((float(np.abs(f.boxes[:, :2]).max()) for f in found if len(f.boxes)), default=REACH_M)
    return float(min(REACH_M, _STEP_M * np.ceil(farthest / _STEP_M)))


def _near(truth: GroundTruth, reach_m: float) -> dict[str, Any]:
    near = (np.abs(truth.boxes[:, :2]) < reach_m).all(axis=1)
    return {"boxes": numbers(truth.boxes[near]), "labels": truth.labels[near].tolist()}


def _facts(found: Found) -> dict[str, Any]:
    return {"boxes": numbers(found.boxes), "scores": numbers(found.scores), "labels": found.labels.tolist()}


def _cameras(token: str, tables: DatasetTables) -> list[dict[str, Any]]:
    """Image and projection of each camera, as `boxes.js` takes them; pixels are the file's."""
    files, matrices = tables.image_files(token, CAMERAS), tables.lidar2img(token, CAMERAS)
    cameras = []
    for name, lidar2img in zip(CAMERAS, matrices, strict=True):
        picture, size = photo_uri(files[name], _PHOTO_WIDTH)
        view = {"name": name, "size": list(size), "covers": list(size), "picture": picture}
        cameras.append(view | {"lidar2img": numbers(lidar2img[:3])})
    return cameras
