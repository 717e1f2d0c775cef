"""What the gain benchmark compares: every row of its table, as a config and changes of it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields

from common import ROOT
from mmengine.config import Config

from camera3d.detectors.builder import load_config
from train.distillers.areas import AreaOptions
from train.distillers.config import DistillerConfig
from train.distillers.terms import TERMS
from train.engine.options import TrainOptions
from train.engine.rate import rate_factor

CONFIGS = ROOT / "configs" / "demo"
LAYER = "head"
TRAINED_HEAD = "FD3D, trained head"
ALONE, FD3D, HEATMAP = "alone", "FD3D", "heatmap terms, released start"
HEATMAP_FROM_HEAD = "heatmap terms, head copied"
STARTS = {"released": "released", "head": "head copied", "head_and_encoder": "head and encoder copied"}
FD3D_RAW = "FD3D, bev_generation on the raw map"
# What terms came to ask after the first records, and the answer that they had then.
LATER_OPTIONS = {"reduction": "mean"}
FD3D_TERMS = ("pv_generation", "bev_generation", "focal", "query")
HEATMAP_TERMS = ("pv_divergence", "bev_heatmap")
RAW = ("bev_generation", "raw")  # the experiment on why bev_generation gains nothing by itself
PLACEMENTS = {"bev_generation": ("generated", "raw"), "focal": ("raw", "generated")}
LIVE = "live_fd"
# Of which the streamed rows are the counterparts: the published queue is of four frames, the demo's of two.
PUBLISHED_QUEUE = {"queue_length": 4}
# Streamed epochs that take as long as its at the long horizon, rounded down. A streamed step took 0.64 of its
# CPU seconds, and 0.71 to 0.77 with FD3D's terms: benchmarks/train_step.py, these configs, --queue-length 4.
EQUAL_TIME_EPOCHS = {ALONE: 6, FD3D: 5}
STREAMED = {ALONE: "student_stream.py", FD3D: "distill_fd3d_stream.py"}
# Neither changes what is learnt.
BESIDE_THE_POINT = ("log_interval", "checkpoint_interval")


@dataclass(frozen=True, kw_only=True)
class Row:
    """How a student is trained.

    Attributes:
        config: below configs/demo.
        overrides: changes of the config, by the key that --cfg-options takes.
        source: a store's profile; `live_fd` for the teacher in every step; None for no teacher.
        long: whether the row is trained at the long horizon too.
        epochs: instead of the long horizon's, for rows of equal time; these have no short training.
        teacher: its config, below configs/demo.
        head: config of a distillation head, below configs/demo, of which the store gets the layer LAYER; None
            for the teacher's own queries.
    """

    name: str
    config: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    source: str | None = "exact"
    long: bool = False
    epochs: int | None = None
    teacher: str = "teacher.py"
    head: str | None = None

    def resolved_head(self) -> dict[str, object]:
        """All that decides what the head of a row learns but the store."""
        config = load_config(CONFIGS / self.head).to_dict()
        return {name: value for name, value in config.items() if name not in BESIDE_THE_POINT}

    def resolved(self, settings: Mapping[str, object]) -> dict[str, object]:
        """All that decides what is learnt but seed, scenes and teacher, with the code's own defaults."""
        overrides = copy.deepcopy({**settings, **self.overrides})  # merging takes entries out of them
        options = TrainOptions(
            config=str(CONFIGS / self.config), dataroot="", version="", work_dir="", cfg_options=overrides
        )
        loaded = options.load_config()
        config = loaded.to_dict()
        if self.source is not None:
            config["distiller"] = filled_in(config["distiller"])
            for options in config["distiller"]["terms"].values():
                for name, as_before in LATER_OPTIONS.items():
                    if options.get(name) == as_before:
                        del options[name]
        if rate_factor(loaded, config["train_dataloader"]["batch_size"]) == 1:
            config.pop("auto_scale_lr", None)  # nothing is scaled
        return {name: value for name, value in config.items() if name not in BESIDE_THE_POINT}


def rows() -> list[Row]:
    """In the order of the table."""
    start, terms = shipped_start(), filled_in(_distiller("distill_fd3d.py"))["terms"]

    def fd3d(name: str, kept: Mapping[str, object], *, long: bool = False) -> Row:
        return Row(name=name, config="distill_fd3d.py", overrides=_only(kept), long=long)

    def heatmap(name: str, start: str, kept: tuple[str, ...], *, long: bool = False) -> Row:
        of_heatmap = _distiller("distill_heatmap.py")["terms"]
        overrides = _start(start) | _only({term: of_heatmap[term] for term in kept})
        return Row(name=name, config="distill_heatmap.py", overrides=overrides, long=long)

    return [
        Row(name=ALONE, config="student.py", source=None, long=True),
        *(
            Row(
                name=start_only(kind),
                config="distill_fd3d.py",
                overrides=_start(kind) | _only({}),
                long=kind in (start, "released"),
            )
            for kind in STARTS
        ),
        *(heatmap(f"heatmap: {term} alone", "released", (term,)) for term in HEATMAP_TERMS),
        heatmap(HEATMAP, "released", HEATMAP_TERMS, long=True),
        heatmap(HEATMAP_FROM_HEAD, "head", HEATMAP_TERMS, long=True),
        Row(name=FD3D, config="distill_fd3d.py", long=True),
        *(
            fd3d(f"FD3D: {term} alone", {term: terms.get(term, {})}, long=term in ("focal", "bev_generation"))
            for term in FD3D_TERMS
        ),
        *(
            fd3d(f"FD3D without {term}", {other: terms[other] for other in terms if other != term})
            for term in terms
        ),
        *(
            fd3d(
                f"FD3D: {term} alone, {place} map",
                {term: {**terms.get(term, {}), "bev_map": place}},
                long=(term, place) == RAW,
            )
            for term, places in PLACEMENTS.items()
            for place in places
        ),
        fd3d(FD3D_RAW, terms | {"bev_generation": {**terms["bev_generation"], "bev_map": "raw"}}, long=True),
        Row(
            name=TRAINED_HEAD,
            config="distill_fd3d.py",
            overrides={"cache_layer": LAYER},
            head="head.py",
            long=True,
        ),
        Row(name="FD3D, compact store", config="distill_fd3d.py", source="compact"),
        Row(name="FD3D, focal store", config="distill_fd3d.py", source="focal"),
        Row(name="FD3D, live_fd", config="distill_fd3d.py", source=LIVE),
        *(row for queue in STREAMED for row in histories(queue)),
    ]


def histories(row: str) -> list[Row]:
    """A row with the published queue, and streamed: for as many steps, and for as long."""
    config, source = ("student.py", None) if row == ALONE else ("distill_fd3d.py", "exact")
    queue, stream, as_long = history_names(row)
    return [
        Row(name=queue, config=config, overrides=PUBLISHED_QUEUE, source=source, long=True),
        Row(name=stream, config=STREAMED[row], source=source, long=True),
        Row(name=as_long, config=STREAMED[row], source=source, long=True, epochs=EQUAL_TIME_EPOCHS[row]),
    ]


def history_names(row: str) -> tuple[str, str, str]:
    """Names of these rows."""
    return f"{row}, queue of 4", f"{row}, stream", f"{row}, stream, equal time"


def detr3d_rows() -> list[Row]:
    """DETR3D's student alone, with the start that its FD3D is shipped with, and with all of FD3D."""
    teacher = {"teacher": "detr3d_teacher.py"}
    return [
        Row(name=ALONE, config="detr3d_student.py", source=None, **teacher),
        Row(
            name=start_only("head"),
            config="distill_detr3d.py",
            overrides=_start("head") | _only({}),
            **teacher,
        ),
        Row(name=FD3D, config="distill_detr3d.py", **teacher),
    ]


def start_only(kind: str) -> str:
    """Name of the row with this start and no term."""
    return f"start only: {STARTS[kind]}"


def shipped_start() -> str:
    """What FD3D takes from the teacher before the first step."""
    return filled_in(_distiller("distill_fd3d.py"))["init_from_teacher"]


def reference() -> str:
    """The row without terms that every row's gain is compared with: the start that FD3D is shipped with."""
    return start_only(shipped_start())


def steps() -> list[tuple[str, str]]:
    """Pairs of rows whose difference is a claim: the second adds one thing to the first."""
    return [
        (ALONE, start_only("released")),
        (ALONE, reference()),
        (start_only("released"), HEATMAP),
        (reference(), HEATMAP),
        (reference(), HEATMAP_FROM_HEAD),
        (HEATMAP, FD3D),
        (HEATMAP_FROM_HEAD, FD3D),
        (reference(), "FD3D: bev_generation alone"),
        (reference(), "FD3D: bev_generation alone, raw map"),
        (reference(), "FD3D: focal alone"),
        (reference(), FD3D),
        (FD3D, FD3D_RAW),
        (FD3D, TRAINED_HEAD),
        *((queue, streamed) for queue, *both in map(history_names, STREAMED) for streamed in both),
    ]


def filled_in(distiller: Mapping[str, object]) -> dict[str, object]:
    """A config's `distiller` with every default that the code would take."""
    terms = distiller.get("terms", {})
    filled = {
        "areas": _defaults(AreaOptions) | distiller.get("areas", {}),
        "terms": {name: _keywords(name) | (options or {}) for name, options in terms.items()},
    }
    return _defaults(DistillerConfig) | distiller | filled


def _distiller(config: str) -> dict[str, object]:
    loaded: Config = load_config(CONFIGS / config)
    return loaded.to_dict()["distiller"]


def _start(kind: str) -> dict[str, object]:
    return {"distiller.init_from_teacher": kind}


def _only(terms: Mapping[str, object]) -> dict[str, object]:
    return {"distiller.terms": {"_delete_": True, **terms}}


def _defaults(options: type) -> dict[str, object]:
    return {f.name: f.default for f in fields(options) if f.default is not MISSING}


def _keywords(term: str) -> dict[str, object]:
    taken = inspect.signature(TERMS[term]).parameters.values()
    return {keyword.name: keyword.default for keyword in taken if keyword.default is not keyword.empty}
