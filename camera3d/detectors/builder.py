"""From a config to a detector."""

from __future__ import annotations

import copy
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path

import mmdet.models  # noqa: F401  registers mmdet's backbones and necks
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

import camera3d.detectors.bevdepth.detector
import camera3d.detectors.bevformer.detector
import camera3d.detectors.detr3d.detector
import camera3d.detectors.image2d.detector
import camera3d.detectors.query_based.distillation_head
import camera3d.layers.deform_conv  # noqa: F401  registers the deformable convolution
from camera3d.config_check import check_config
from camera3d.config_files import find_config
from camera3d.detectors.protocol import Detector
from camera3d.errors import ConfigInvalid
from camera3d.logs import quiet_mmengine

# How constructors complain about their arguments.
REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def load_config(config: str | Path | Config, overrides: Mapping[str, object] | None = None) -> Config:
    """A config object from a file or a packaged config; one that is loaded already is handed back.

    Args:
        overrides: what `--cfg-options` puts in place of entries, by dotted keys.

    Raises:
        ConfigInvalid: there is no such file, it does not define `model` and `inputs`, or it has keys
            or values that cannot be, see `check_config`.
    """
    if isinstance(config, Config):
        _require_parts(config, f"config {config.filename or ''}".strip())
        return config
    path = find_config(config)
    try:
        with warnings.catch_warnings():
            # mmengine finds mmdet's own configs through it.
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            config = Config.fromfile(path)
    except (ImportError, SyntaxError, NameError, KeyError, TypeError, OSError) as error:
        raise ConfigInvalid(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
    name = f"config {path}"
    if overrides:
        name += " with --cfg-options"
        try:
            config.merge_from_dict(copy.deepcopy(dict(overrides)))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ConfigInvalid(f"--cfg-options {dict(overrides)} does not fit {path}: {error}") from error
    _require_parts(config, name)
    init_default_scope("mmdet3d")
    kind = MODELS.get(config.model.get("type")) if isinstance(config.model.get("type"), str) else None
    if hasattr(kind, "resolved"):
        config.model = kind.resolved(config.model.to_dict())
    check_config(config, name)
    return config


def _require_parts(config: Config, name: str) -> None:
    missing = [part for part in ("model", "inputs") if part not in config]
    if missing:
        raise ConfigInvalid(f"{name} does not define {' and '.join(missing)}")


def build_detector(config: str | Path | Config) -> Detector:
    """The detector that a config's `model` describes, with random weights, in eval mode.

    Raises:
        ConfigInvalid: see `load_config`; or `model.type` names no known detector, or its constructor refuses
            what the rest of `model` says.
    """
    config = load_config(config)
    init_default_scope("mmdet3d")
    kind = config.model.get("type")
    if not isinstance(kind, str) or MODELS.get(kind) is None:
        raise ConfigInvalid(
            f"config {config.filename or ''}: model.type {kind!r} is not a registered detector"
        )
    # A copy: mmdet's parts take entries out of what they are built from, and a config is what stores keep.
    parts = copy.deepcopy(config.model)
    try:
        return MODELS.build(parts).eval()
    except ConfigInvalid as error:
        raise ConfigInvalid(
            f"config {config.filename or ''}: {kind} cannot be built from its `model`: {error}"
        ) from error
    except REFUSALS as error:
        # Nobody sees the traceback: say where it was.
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigInvalid(
            f"config {config.filename or ''}: {kind} cannot be built from its `model`:"
            f" {error or type(error).__name__} ({place.filename}, line {place.lineno})"
        ) from error


def draw_weights(detector: nn.Module) -> None:
    """Draw a detector's first weights; some of mmdet's parts read theirs from a file.

    Raises ConfigInvalid when there is no such file, or no network to get it by.
    """
    try:
        with quiet_mmengine():
            detector.init_weights()
    except OSError as error:
        raise ConfigInvalid(
            f"the weights that an `init_cfg` of the config names cannot be loaded: {error}. Put the file"
            " where torch keeps it (TORCH_HOME), or leave it out, such as with"
            " --cfg-options model.detector.backbone.init_cfg=None, and give --init-from."
        ) from error


def plain_config(value: object) -> object:
    """A config as plain dicts, lists and scalars: what a store keeps, and what it is compared with."""
    if isinstance(value, dict):
        return {str(key): plain_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_config(item) for item in value]
    return value
