"""What a training is asked to do, and the command-line arguments that both training commands share."""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from camera3d.config_printing import add_print_config, config_text
from camera3d.detectors.builder import load_config
from camera3d.devices import DEVICE_HELP
from camera3d.errors import ConfigInvalid
from train.distillers.config import DistillerConfig
from train.engine.extending import EPOCHS_FACT

NO_SPLIT = "none"
SOURCES = ("cache", "live", "live_fd")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """One training.

    Attributes:
        split, val_split: None takes the version's own pair; `val_split` "none" leaves evaluation out.
        init_from: checkpoint whose fitting weights the detector starts from.
        workers, batch_size: for each process; None takes the config's.
        skip_nonfinite: how many steps may be left out because their loss or gradient is not finite.
        device: see `checked_device`.
        dry_run: check everything, and write nothing.
        check_images: decode every image once before the first step.
        epochs: how many the training has, in place of the config's; with `resume` also of one that was begun
            with another number.
    """

    config: str
    dataroot: str
    version: str
    work_dir: str
    split: str | None = None
    val_split: str | None = None
    init_from: str | None = None
    resume: bool = False
    seed: int = 0
    workers: int | None = None
    batch_size: int | None = None
    skip_nonfinite: int = 0
    device: str | None = None
    dry_run: bool = False
    check_images: bool = False
    epochs: int | None = None
    cfg_options: dict[str, object] = field(default_factory=dict)

    def load_config(self) -> Config:
        """The config with `--cfg-options` merged in. Raises ConfigInvalid."""
        config = load_config(self.config, with_epochs(self.cfg_options, self.epochs))
        if config.get("distiller") is not None:
            DistillerConfig.from_config(config)
        return config


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainOptions):
    """One distillation.

    Attributes:
        cache: the store; needed when `teacher_source` is `cache`.
        teacher_source: cache, live or live_fd.
        layer: of the store, whose queries and detections are read in place of the teacher's; None takes the
            config's `cache_layer`.
        teacher_checkpoint: weights of a live teacher; with a cache, what the store must have been made of.
        allow_partial: train on the scenes that the store holds.
        expect_digest: of the store, or its first 12 digits or more.
    """

    cache: str | None = None
    teacher_source: str = "cache"
    layer: str | None = None
    teacher_checkpoint: str | None = None
    allow_partial: bool = False
    expect_digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class HeadOptions(TrainOptions):
    """The training of a distillation head, on the frames of a store, and the layer that it writes there.

    Attributes:
        cache: the store.
        layer: name of the layer.
        min_score: of queries that the layer keeps.
        threads: CPU threads while the layer is written; its bytes depend on them.
        expect_digest: of the store, or its first 12 digits or more.
    """

    cache: str
    layer: str
    min_score: float = 0.1
    threads: int | None = None
    expect_digest: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the trainings on images, but for the config."""
    add_shared_arguments(parser)
    parser.add_argument("--split", help="frames to train on (default: the version's own, such as train)")
    parser.add_argument(
        "--val-split", help=f"frames to evaluate on (default: the version's own; {NO_SPLIT}: no evaluation)"
    )
    parser.add_argument(
        "--check-images",
        action="store_true",
        help="decode every image once before the first step, so that no damaged file stops a long run",
    )


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every training command, but for the config."""
    parser.add_argument(
        "--dataroot",
        required=True,
        help="folder with samples/, maps/ and the version's tables, or in COCO's format",
    )
    parser.add_argument(
        "--version", required=True, help="v1.0-mini, v1.0-trainval, any folder of tables, or such as 2017"
    )
    parser.add_argument(
        "--work-dir", required=True, help="folder for checkpoints, logs, last.pth and best.pth"
    )
    parser.add_argument(
        "--init-from", metavar="FILE", help="checkpoint to start from: every weight that fits"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in the work folder, if there is one",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="epochs in place of the config's; with --resume: extend a training to N epochs, finished or not",
    )
    parser.add_argument("--device", help=DEVICE_HELP)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is random (default 0)")
    parser.add_argument(
        "--batch-size", type=int, help="samples per process and step (default: the config's, 1)"
    )
    parser.add_argument("--workers", type=int, help="processes that load data (default: the config's, 4)")
    parser.add_argument(
        "--skip-nonfinite",
        type=int,
        default=0,
        metavar="N",
        help="leave out up to N steps whose loss or gradient is not finite (default 0: the first one ends the"
        " training)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print what would be done, and write nothing"
    )
    add_print_config(parser)
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override config entries, e.g. train_cfg.max_epochs=12 amp=bf16",
    )


def parsed_options(pairs: list[str]) -> dict[str, object]:
    """`KEY=VALUE` to a dict; values are Python literals or else text. Raises ConfigInvalid."""
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigInvalid(f"--cfg-options {pair}: expected KEY=VALUE, such as train_cfg.max_epochs=12")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


def with_epochs(cfg_options: dict[str, object], epochs: int | None) -> dict[str, object]:
    """The options with what `--epochs` says among them. Raises ConfigInvalid when they say another number."""
    if epochs is None:
        return cfg_options
    if cfg_options.get(EPOCHS_FACT, epochs) != epochs:
        raise ConfigInvalid(
            f"--epochs {epochs} and --cfg-options {EPOCHS_FACT}={cfg_options[EPOCHS_FACT]} differ: give one"
        )
    return cfg_options | {EPOCHS_FACT: epochs}


def printed_config(args: argparse.Namespace) -> str:
    """What `--print-config` prints. Raises ConfigInvalid."""
    return config_text(args.config, with_epochs(parsed_options(args.cfg_options), args.epochs))


def options_of(args: argparse.Namespace) -> TrainOptions:
    """From parsed arguments; those of a single command are left to it. Raises ConfigInvalid."""
    given = {name: value for name, value in vars(args).items() if name in TrainOptions.__dataclass_fields__}
    given["cfg_options"] = parsed_options(args.cfg_options)
    for name, least in (("batch_size", 1), ("workers", 0), ("skip_nonfinite", 0), ("epochs", 1)):
        if given[name] is not None and given[name] < least:
            raise ConfigInvalid(f"--{name.replace('_', '-')} {given[name]}: expected {least} or more")
    given["work_dir"] = str(Path(args.work_dir))
    return TrainOptions(**given)
