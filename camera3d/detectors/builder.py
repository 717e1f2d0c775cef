"""From a config to a detector."""

from __future__ import annotations

import copy
from pathlib import Path

import mmdet.models  # noqa: F401  registers mmdet's backbones and necks
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import camera3d.detectors.bevformer.detector
import camera3d.detectors.detr3d.detector
import camera3d.layers.deform_conv  # noqa: F401  registers the deformable convolution
from camera3d.config_files import find_config
from camera3d.detectors.protocol import Detector
from camera3d.errors import ConfigInvalid


def load_config(config: str | Path | Config) -> Config:
    """A config object from a file or a packaged config; one that is loaded already is handed back.

    Raises:
        ConfigInvalid: there is no such file, or it does not define `model` and `inputs`.
    """
    if not isinstance(config, Config):
        path = find_config(config)
        try:
            config = Config.fromfile(path)
        except (SyntaxError, NameError, KeyError, TypeError, OSError) as error:
            raise ConfigInvalid(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
    missing = [name for name in ("model", "inputs") if name not in config]
    if missing:
        raise ConfigInvalid(f"config {config.filename or ''} does not define {' and '.join(missing)}")
    return config


def build_detector(config: str | Path | Config) -> Detector:
    """The detector that a config's `model` describes, with random weights, in eval mode.

    Raises:
        ConfigInvalid: see `load_config`; or `model.type` names no known detector.
    """
    config = load_config(config)
    init_default_scope("mmdet3d")
    kind = config.model.get("type")
    if not isinstance(kind, str) or MODELS.get(kind) is None:
        raise ConfigInvalid(
            f"config {config.filename or ''}: model.type {kind!r} is not a registered detector"
        )
    # A copy: mmdet's parts take entries out of what they are built from, and a config is what stores keep.
    return MODELS.build(copy.deepcopy(config.model)).eval()


def plain_config(value: object) -> object:
    """A config as plain dicts, lists and scalars: what a store keeps, and what it is compared with."""
    if isinstance(value, dict):
        return {str(key): plain_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_config(item) for item in value]
    return value
