"""The results JSON of the official submission format, written sample by sample and read back with checks."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox

from camera3d.errors import shown
from camera3d.evaluation.errors import ResultsIncomplete, ResultsInvalid, ResultsUnwritable
from camera3d.evaluation.submission import EVAL_CONFIG
from camera3d.files import replaced

RESULTS_NAME, METRICS_NAME, SUMMARY_NAME = "results_nusc.json", "metrics.json", "metrics_summary.json"
CURVES_NAME = "precision_recall.json"
SAMPLE_NBYTES = 100_000  # of a sample with 300 boxes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAKE_ROOM = "Make room, or give another folder for the results (--out)."
META: Mapping[str, bool] = {
    "use_camera": True,
    "use_lidar": False,
    "use_radar": False,
    "use_map": False,
    "use_external": False,
}


def write_results(path: str | Path, samples: Iterable[tuple[str, list[dict]]]) -> Path:
    """Write a results JSON, whole or not at all; one sample is in memory at a time.

    Args:
        samples: sample token and boxes of `submission_boxes`, each token once.

    Raises ResultsUnwritable when the disk does not take it.
    """
    with result_file(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"meta": {json.dumps(META)}, "results": {{')
        for number, (sample_token, boxes) in enumerate(samples):
            file.write(",\n" if number else "\n")
            file.write(f"{json.dumps(sample_token)}: {json.dumps(boxes, allow_nan=False)}")
        file.write("\n}}\n")
    return Path(path)


@contextmanager
def result_file(path: Path) -> Iterator[Path]:
    """As `replaced`, for a file of results. Raises ResultsUnwritable when the disk does not take it."""
    try:
        with replaced(path) as temporary:
            yield temporary
    except OSError as error:
        raise ResultsUnwritable(f"{path} cannot be written: {error.strerror}. {_way_out(error)}") from error


def check_writable(out_dir: str | Path | None, n_samples: int = 0) -> None:
    """Raise ResultsUnwritable when a folder cannot take the results of this many samples.

    Args:
        out_dir: is made when it is not there; None for the system's temporary files.
    """
    try:
        folder = Path(tempfile.gettempdir() if out_dir is None else out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"results")
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        where = "a folder for temporary files" if out_dir is None else out_dir
        raise ResultsUnwritable(
            f"nothing can be written to {where}: {error.strerror}. {_way_out(error)}"
        ) from error
    needed_bytes = n_samples * SAMPLE_NBYTES
    if free_bytes < needed_bytes:
        raise ResultsUnwritable(
            f"the results of {n_samples:,} samples take up to {needed_bytes / 1e6:,.1f} MB, and {folder} has"
            f" {free_bytes / 1e6:,.1f} MB free. {_MAKE_ROOM}"
        )
    taken = [
        name for name in (RESULTS_NAME, METRICS_NAME, SUMMARY_NAME, CURVES_NAME) if (folder / name).is_dir()
    ]
    if taken:
        raise ResultsUnwritable(
            f"{', '.join(str(folder / name) for name in taken)}: a folder where a file is to be written. Move"
            " it away, or give another folder for the results."
        )


def _way_out(error: OSError) -> str:
    return _MAKE_ROOM if error.errno in _FULL else "Give another folder for the results (--out)."


def read_results(path: str | Path) -> tuple[dict[str, list[dict]], dict]:
    """Boxes by sample token, and the meta entry, of a results JSON. The boxes are not looked at yet.

    Raises:
        ResultsInvalid: no such file, not JSON, or without `results` and `meta` objects.
    """
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
    except FileNotFoundError:
        raise ResultsInvalid(f"no results JSON {path}") from None
    except (OSError, ValueError) as error:
        raise ResultsInvalid(f"{path} is not a results JSON: {error}") from error
    for key in ("results", "meta"):
        if not isinstance(raw, dict) or not isinstance(raw.get(key), dict):
            raise ResultsInvalid(
                f"{path} is not in the official results format: it has no object {key!r}. Write"
                ' {"meta": {"use_camera": true, …}, "results": {sample_token: [box, …], …}}.'
            )
    return raw["results"], raw["meta"]


def check_coverage(present: Iterable[str], wanted: Sequence[str], source: str, split: str) -> None:
    """Raise ResultsIncomplete when samples of the split are absent, with their count and the first tokens.

    Args:
        source: what is incomplete, for the message, such as a path.
    """
    present = set(present)
    missing = [token for token in wanted if token not in present]
    if missing:
        raise ResultsIncomplete(
            f"{source} lacks {len(missing)} of the {len(wanted)} samples of split {split!r}:\n"
            f"{shown(missing)}\n"
            "A score needs every sample of the split. Complete it, or name the split that it was made for."
        )


def eval_boxes(results: dict[str, list[dict]], tokens: Iterable[str], source: str) -> EvalBoxes:
    """The devkit's boxes of these samples. Takes them out of `results`, so that both never lie in memory.

    Raises:
        ResultsInvalid: too many boxes, a box without a field, of an unknown class or attribute, with a number
            that is none, or filed under another sample.
    """
    boxes = EvalBoxes()
    for token in tokens:
        raw = results.pop(token)
        try:
            found = [DetectionBox.deserialize(box) for box in raw]
        except KeyError as error:
            raise ResultsInvalid(f"{source}, sample {token}: a box has no field {error}") from error
        except (AssertionError, TypeError, ValueError) as error:
            raise ResultsInvalid(f"{source}, sample {token}: {str(error).removeprefix('Error: ')}") from error
        if len(found) > EVAL_CONFIG.max_boxes_per_sample:
            limit = EVAL_CONFIG.max_boxes_per_sample
            raise ResultsInvalid(f"{source}, sample {token}: {len(found)} boxes; {limit} are allowed")
        strays = sorted({box.sample_token for box in found} - {token})
        if strays:
            raise ResultsInvalid(f"{source}, sample {token}: a box says it is of sample {strays[0]}")
        boxes.add_boxes(token, found)
    return boxes
