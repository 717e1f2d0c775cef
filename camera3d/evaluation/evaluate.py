"""From a detector, or from detections, to the official metrics."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from nuscenes import NuScenes

from camera3d.data import ImagePipeline, SplitIndex
from camera3d.data.devkit import open_nuscenes
from camera3d.data.scene_shares import scenes_of_part
from camera3d.detectors import Detector
from camera3d.detectors.protocol import Detections
from camera3d.errors import Camera3DError, ConfigInvalid
from camera3d.evaluation.coco import CocoMetrics, evaluate_pictures
from camera3d.evaluation.metrics import Metrics
from camera3d.evaluation.predict import predict_split
from camera3d.evaluation.results_file import RESULTS_NAME, check_writable, write_results
from camera3d.evaluation.score import score
from camera3d.evaluation.sharing import all_ranks
from camera3d.evaluation.submission import Pose, check_class_names, submission_boxes


def evaluate_detector(
    detector: Detector,
    index: SplitIndex,
    pipeline: ImagePipeline,
    dataroot: str | Path,
    *,
    version: str,
    split: str,
    out_dir: str | Path | None,
    device: torch.device | str,
    workers: int = 2,
    autocast_dtype: torch.dtype | None = None,
    progress: bool = True,
    watch: Callable[[str, Detections], None] | None = None,
) -> Metrics | CocoMetrics:
    """Predict a split and score it. Every module is afterwards in the mode it was in.

    Where torch.distributed is initialised, every process must call this: each predicts a part of the scenes,
    the first one gathers, writes and scores, and all return the same metrics. An error is raised everywhere.

    Args:
        detector: without a DistributedDataParallel around it.
        index: of all samples of `split`.
        out_dir: where to leave the results JSON, metrics.json and what else the dataset's evaluation has;
            None: nowhere.
        workers: processes that read images ahead, for each process.
        autocast_dtype: see `predict_split`.
        watch: called in the first process with every sample token and what was detected there.

    Raises:
        ConfigInvalid: the index is of another version or split.
        ResultsUnwritable: the results do not fit into `out_dir`; before anything is predicted.
        OutputsNotFinite: the detector predicts NaN.
        Camera3DError: from the images, the dataset and `score`.
    """
    if (index.version, index.split) != (version, split):
        raise ConfigInvalid(
            f"the index holds split {index.split!r} of {index.version}; {split!r} of {version} is to be"
            " evaluated. Build the index of that split."
        )
    evaluate_found = SCORERS[index.dataset]
    if evaluate_found is evaluate_detections:
        check_class_names(detector.class_names)
    with all_ranks() as ranks:
        refusal = ranks.from_first(_refusal(out_dir, index) if ranks.rank == 0 else None)
        if refusal is not None:
            raise refusal
        n_samples = {scene.name: scene.stop - scene.first for scene in index.scene_rows}
        part = index.select(scenes_of_part(n_samples, ranks.rank, ranks.world_size))
        found: list[tuple[str, Detections]] | Camera3DError
        try:
            found = list(
                predict_split(
                    detector,
                    part,
                    pipeline,
                    dataroot,
                    device=device,
                    workers=workers,
                    autocast_dtype=autocast_dtype,
                    progress=progress and ranks.rank == 0,
                )
            )
        except Camera3DError as error:
            found = error  # the others wait for this process: tell them
        gathered = ranks.gather(found)
        outcome = None
        if gathered is not None:
            try:
                detections = _watched(_in_order(index, gathered), watch)
                outcome = evaluate_found(
                    detections, detector.class_names, dataroot, version=version, split=split, out_dir=out_dir
                )
            except Camera3DError as error:
                outcome = error
        outcome = ranks.from_first(outcome)
    if isinstance(outcome, Camera3DError):
        raise outcome
    return outcome


def evaluate_detections(
    detections: Iterable[tuple[str, Detections]],
    class_names: Sequence[str],
    dataroot: str | Path,
    *,
    version: str,
    split: str,
    out_dir: str | Path | None,
    nusc: NuScenes | None = None,
) -> Metrics:
    """Write detections as a results JSON and score it.

    Args:
        detections: sample token and detections in the LiDAR frame, each token once.
        class_names: what the labels stand for.
        nusc: the version's devkit database, when it is loaded already.

    Raises:
        ResultsInvalid: a class or a number that cannot be; and what `score` and `check_writable` raise.
    """
    check_class_names(class_names)
    nusc = nusc or open_nuscenes(dataroot, version)
    boxes = (
        (token, submission_boxes(token, found, class_names, **poses_of(nusc, token)))
        for token, found in detections
    )
    with _folder(out_dir) as folder:
        results = write_results(folder / RESULTS_NAME, boxes)
        return score(results, dataroot, version, split, out_dir, nusc=nusc)


# By what a dataset is called: detections of a whole split to metrics.
SCORERS = {"nuscenes": evaluate_detections, "coco": evaluate_pictures}


def poses_of(nusc: NuScenes, sample_token: str) -> dict[str, Pose]:
    """`lidar_to_ego` and `ego_to_global` when LIDAR_TOP fired, of one sample."""
    lidar = nusc.get("sample_data", nusc.get("sample", sample_token)["data"]["LIDAR_TOP"])
    return {
        "lidar_to_ego": Pose.of_record(nusc.get("calibrated_sensor", lidar["calibrated_sensor_token"])),
        "ego_to_global": Pose.of_record(nusc.get("ego_pose", lidar["ego_pose_token"])),
    }


def _refusal(out_dir: str | Path | None, index: SplitIndex) -> Camera3DError | None:
    """Why results cannot be written, if so."""
    try:
        check_writable(out_dir, len(index))
    except Camera3DError as error:
        return error
    return None


def _in_order(index: SplitIndex, gathered: list) -> Iterator[tuple[str, Detections]]:
    """The detections of all processes in the order of the index, so that no file depends on their number."""
    for found in gathered:
        if isinstance(found, Camera3DError):
            raise found
    by_token = dict(pair for found in gathered for pair in found)
    return ((frame_token, by_token[frame_token]) for frame_token in _tokens(index))


def _watched(
    detections: Iterable[tuple[str, Detections]], watch: Callable[[str, Detections], None] | None
) -> Iterator[tuple[str, Detections]]:
    for token, found in detections:
        if watch is not None:
            watch(token, found)
        yield token, found


def _tokens(index: SplitIndex) -> Iterator[str]:
    return (token.decode() for token in index.columns["sample_token"].tolist())


@contextmanager
def _folder(out_dir: str | Path | None) -> Iterator[Path]:
    if out_dir is not None:
        yield Path(out_dir)
        return
    check_writable(None)
    with tempfile.TemporaryDirectory(prefix="nuscenes-results-") as folder:
        yield Path(folder)
