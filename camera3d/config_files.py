"""Where configs are: a file of the user's, or one that comes with the project."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from camera3d.errors import ConfigInvalid


def configs_folder() -> Path:
    """The configs that come with the project: inside this package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(config: str | Path) -> Path:
    """The file itself, or the packaged config of that path, with or without a leading `configs/`.

    Raises:
        ConfigInvalid: neither is there; names the packaged configs that come nearest.
    """
    path = Path(config)
    if path.is_file():
        return path
    folder = configs_folder()
    if not path.is_absolute():
        inner = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
        if (folder / inner).is_file() and ".." not in inner.parts:
            return folder / inner
    packaged = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.glob("*/*.py")
        if not file.parent.name.startswith("_")
    )
    wanted = "/".join(path.parts[-2:])
    near = get_close_matches(wanted, packaged, n=3, cutoff=0.5) or packaged
    raise ConfigInvalid(
        f"no config file {path}, and none of that path is packaged: give a file, or one of {', '.join(near)}"
    )
