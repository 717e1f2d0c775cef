"""Find a sample's camera images in a nuScenes folder, without the devkit.

`sample_data.json` of the full dataset is over a gigabyte of JSON for the six lines that are wanted, so it is
searched as text: its records are flat objects, and the one that holds the sample's token is cut out.
"""

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cache_schema.errors import CacheError


def image_files(dataroot: Path, version: str, sample_token: str, cameras: Sequence[str]) -> dict[str, Path]:
    """The sample's keyframe image of each camera.

    Raises CacheError when a table, a record or an image is not there; all missing cameras are named.
    """
    tables = dataroot / version
    try:
        channel_of = _channels(tables)
        records = list(_records_with(tables / "sample_data.json", sample_token))
    except FileNotFoundError as error:
        raise CacheError(
            f"{dataroot} is no nuScenes folder of {version}: {error.filename} is missing"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"the tables in {tables} are not those of nuScenes: {error!r}") from None
    found = {}
    for record in records:
        if record.get("sample_token") == sample_token and record.get("is_key_frame"):
            channel = channel_of.get(record.get("calibrated_sensor_token"))
            found[channel] = dataroot / record["filename"]
    missing = [camera for camera in cameras if camera not in found or not found[camera].is_file()]
    if missing:
        raise CacheError(f"{dataroot} has no image of {', '.join(missing)} for sample {sample_token}")
    return {camera: found[camera] for camera in cameras}


def _channels(tables: Path) -> dict[str, str]:
    """Names of the sensors by calibrated_sensor token."""
    sensors = {sensor["token"]: sensor["channel"] for sensor in _table(tables / "sensor.json")}
    return {
        calibrated["token"]: sensors[calibrated["sensor_token"]]
        for calibrated in _table(tables / "calibrated_sensor.json")
    }


def _table(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_bytes())


def _records_with(path: Path, token: str) -> Iterator[dict[str, Any]]:
    """Every flat object of a JSON file that contains a text."""
    needle = json.dumps(token).encode()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
        place = text.find(needle)
        while place >= 0:
            start, stop = text.rfind(b"{", 0, place), text.find(b"}", place) + 1
            yield json.loads(text[start:stop])
            place = text.find(needle, stop)
