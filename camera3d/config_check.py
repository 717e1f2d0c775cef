"""The keys of a config, all of them: a misspelt one would change nothing, and nobody would notice.

`distiller` belongs to the training, which looks at it closer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import TASK_UTILS
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS

from camera3d.config_values import (
    ANYTHING,
    DICT,
    FLAG,
    NUMBER,
    TEXT,
    Each,
    OrNone,
    Part,
    Section,
    Value,
    WholeModel,
    choice,
    is_number,
    keywords,
    numbers,
    whole,
)
from camera3d.data.augmentation import augmentation_faults
from camera3d.data.datasets import DATASETS
from camera3d.data.queue_dataset import UNKNOWN_VELOCITIES
from camera3d.errors import ConfigInvalid, shown

NAMES = Value(
    "names", lambda value: isinstance(value, tuple | list) and all(isinstance(v, str) for v in value)
)
RANGE_M = numbers(6, of=NUMBER)

MODEL = Part(
    MODELS,
    keys={
        "class_names": NAMES,
        "point_cloud_range": RANGE_M,
        "img_backbone": Part(MODELS),
        "img_neck": Part(MODELS),
        "detector": WholeModel((MMDET_MODELS, TASK_UTILS), scope="mmdet"),
    },
)
OPTIMIZER = Part(OPTIMIZERS, given=("params",), keys={"lr": NUMBER})
MULTIPLIERS = Section({"lr_mult": NUMBER, "decay_mult": NUMBER})
PARAMWISE = Section(
    {
        "custom_keys": Each(MULTIPLIERS, dict),
        **dict.fromkeys(("bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult"), NUMBER),
        **dict.fromkeys(("dwconv_decay_mult", "dcn_offset_lr_mult"), NUMBER),
        "bypass_duplicate": FLAG,
    }
)
CLIP = Section(
    {
        "type": choice("norm", "value"),
        "max_norm": NUMBER,
        "norm_type": NUMBER,
        "clip_value": NUMBER,
        "error_if_nonfinite": FLAG,
        "foreach": ANYTHING,
    }
)
OPTIM_WRAPPER = Section(
    {
        # What the training does not choose by itself.
        **dict.fromkeys(keywords(OptimWrapper), ANYTHING),
        "type": TEXT,
        "optimizer": OPTIMIZER,
        "paramwise_cfg": OrNone(PARAMWISE),
        "clip_grad": OrNone(CLIP),
        "accumulative_counts": whole(1),
    }
)
SCHEDULER = Part(PARAM_SCHEDULERS, given=("optimizer",), keys={"convert_to_iter_based": FLAG})
TRAIN_CFG = Section(
    {
        "max_epochs": whole(1),
        "val_begin": whole(1),
        "val_interval": whole(1),
        "dynamic_intervals": ANYTHING,
    }
)
INPUTS = Section(dict.fromkeys(("scale", "pad_hw", "mean", "std", "to_rgb", "resize", "fit"), ANYTHING))


@dataclass(frozen=True)
class Told:
    """What is wrong as somebody else tells it; see Check of camera3d.config_values."""

    faults: Callable[[str, object], list[str]]


SHARE = Value("a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1)
EMA = Section({"decay": SHARE, "ramp_steps": OrNone(whole(1))})
CONFIG = Section(
    {
        "model": MODEL,
        "inputs": INPUTS,  # their values: see ImagePipeline
        "dataset": Section({"type": choice(*DATASETS), "images_per_group": whole(1)}),
        "class_names": NAMES,
        "point_cloud_range": RANGE_M,
        "ground_truth_range": RANGE_M,
        "unknown_velocity": choice(*UNKNOWN_VELOCITIES),
        "lidar_depth": FLAG,
        "teacher": OrNone(TEXT),
        "cache_layer": OrNone(TEXT),
        "distiller": OrNone(DICT),
        "history": choice("queue", "stream"),
        "queue_length": whole(1),
        "drop_history_frame": FLAG,
        "segment_length": whole(2),
        "single_frame_steps": whole(0),
        "distort": FLAG,
        "augmentation": Told(augmentation_faults),
        "ema": OrNone(EMA),
        "class_balanced": FLAG,
        "optim_wrapper": OPTIM_WRAPPER,
        "param_scheduler": Each(SCHEDULER, list),
        "train_cfg": TRAIN_CFG,
        "train_dataloader": Section({"batch_size": whole(1), "num_workers": whole(0)}),
        "auto_scale_lr": OrNone(Section({"enable": FLAG, "base_batch_size": whole(1)})),
        "amp": choice("fp16", "bf16", None),
        "checkpoint_interval": whole(1),
        "log_interval": whole(1),
        "deterministic": FLAG,
        "find_unused_parameters": FLAG,
        "custom_imports": ANYTHING,  # mmengine has followed them by now
    },
    own="_",
)


def check_config(config: Config, name: str) -> None:
    """Look at every key of a config.

    Args:
        name: of the config, for the message.

    Raises ConfigInvalid with a line for each key that nobody reads and each value that cannot be.
    """
    faults = CONFIG.faults("", config.to_dict())
    if faults:
        raise ConfigInvalid(f"{name} does not work:\n{shown(faults)}")
