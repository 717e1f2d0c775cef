"""Everything that can be told before the first step is, in a sentence that says what would do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
import torch
from mmengine.config import Config
from train_cases import FRAMES, SCENES, TERMS, VERSION, prepare

from cache_schema.errors import CacheError, DigestMismatch, FingerprintMismatch, StoreNotFound
from cache_schema.reader import TargetReader
from camera3d.errors import CheckpointMismatch, ConfigInvalid, SplitMismatch
from train.distillers.areas import AreaOptions
from train.engine.options import parsed_options
from train.engine.run import distill
from train.engine.runner import warn_of_idle_rates
from train.targets import TargetsUnfit, check_areas

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST_SCENE = next(iter(SCENES))
ALL_TERMS_BUT_PV = {name: {} for name in TERMS if not name.startswith("pv")}


def failure(workshop, error: type[Exception], config_options=None, **options) -> str:
    """What a training is refused with."""
    with pytest.raises(error) as caught:
        prepare(workshop.options(workshop.student_config("refused", **(config_options or {})), **options))
    return str(caught.value)


def test_all_terms_fit_every_profile_but_where_whole_maps_are_compared(workshop):
    for profile in ("exact", "compact"):
        assert set(prepare_with(workshop, profile, TERMS).model.terms) == set(TERMS)
    kept = {name: {} for name in TERMS if name != "pv_divergence"}
    assert set(prepare_with(workshop, "focal", kept).model.terms) == set(kept)


def prepare_with(workshop, profile, terms):
    config = workshop.student_config("fitting", distiller={"terms": terms})
    return prepare(workshop.options(config, cache=str(workshop.store(profile))))


def test_an_uncovered_split_is_counted_and_can_be_allowed(workshop):
    cache = str(workshop.store("exact", scenes=(FIRST_SCENE,)))
    said = failure(workshop, TargetsUnfit, cache=cache)
    missing = FRAMES - SCENES[FIRST_SCENE]
    assert f"lacks {missing} of the {FRAMES} samples" in said
    assert "--allow-partial" in said
    samples = json.loads((workshop.dataroot / VERSION / "sample.json").read_text())
    assert all(record["token"] in said for record in samples[-missing:])
    got = prepare(workshop.options(workshop.student_config(), cache=cache, allow_partial=True))
    assert got.index.scene_names == (FIRST_SCENE,)
    assert len(got.index) == SCENES[FIRST_SCENE]


def test_a_store_of_no_scene_of_the_split_is_no_part_of_it(workshop, monkeypatch):
    monkeypatch.setattr("cache_schema.reader.TargetReader.__contains__", lambda self, token: False)
    assert "Give the store of this split" in failure(workshop, TargetsUnfit, allow_partial=True)


def test_a_store_of_another_digest_is_refused(workshop):
    store = workshop.store("exact")
    digest = TargetReader(store).digest
    said = failure(workshop, DigestMismatch, cache=str(store), expect_digest="0" * 12)
    assert f"store has        {digest}" in said
    assert prepare(workshop.options(workshop.student_config(), cache=str(store), expect_digest=digest[:12]))
    live = {"cache": None, "teacher_source": "live", "expect_digest": digest}
    assert "reads no store: leave --cache, --allow-partial and --expect-digest out" in failure(
        workshop, ConfigInvalid, **live
    )


@dataclass(frozen=True)
class Case:
    """A config or options that cannot be, and what the message must say."""

    id: str
    error: type[Exception]
    says: tuple[str, ...]
    config: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


CASES = [
    Case(
        "neither term nor start",
        ConfigInvalid,
        ("terms: none", "train_detector.py"),
        {"distiller": {"terms": {}, "init_from_teacher": "none"}},
    ),
    Case(
        "a start that does not exist",
        ConfigInvalid,
        ("init_from_teacher", "head_and_encoder", "'all'"),
        {"distiller.init_from_teacher": "all"},
    ),
    Case(
        "a map that no term reads",
        ConfigInvalid,
        ("terms.focal", "bev_map", "raw or generated", "'restored'"),
        {"distiller.terms.focal": {"bev_map": "restored"}},
    ),
    Case(
        "unknown entries, all together",
        ConfigInvalid,
        ("speed: unknown", "terms.pv_magic: unknown", "focal", "areas.margin: unknown", "bev_margin_m"),
        {"distiller.speed": 1, "distiller.terms.pv_magic": {}, "distiller.areas": {"margin": 2}},
    ),
    Case("terms as a list", ConfigInvalid, ("dict",), {"distiller.terms": ["focal"]}),
    Case("a number for a term", ConfigInvalid, ("terms.focal", "3"), {"distiller.terms.focal": 3}),
    Case("unknown keyword", ConfigInvalid, ("terms.focal", "wait"), {"distiller.terms.focal": {"wait": 1}}),
    Case(
        "impossible value",
        ConfigInvalid,
        ("terms.pv_generation", "mask_ratio", "2"),
        {"distiller.terms.pv_generation": {"mask_ratio": 2}},
    ),
    Case("impossible BEV mask", ConfigInvalid, ("bev_mask_ratio", "7"), {"distiller.bev_mask_ratio": 7}),
    Case("levels that are no pairs", ConfigInvalid, ("pv_levels", "pairs"), {"distiller.pv_levels": [1, 2]}),
    Case("no level", TargetsUnfit, ("pv_levels", "no image level"), {"distiller.pv_levels": []}),
    Case("no such level", TargetsUnfit, ("pv_levels", "(5, 0)"), {"distiller.pv_levels": [(5, 0)]}),
    Case(
        "other class order",
        FingerprintMismatch,
        ("class order", "truck"),
        {
            "model.class_names": ["truck", "car", "bus"],
            "class_names": ["truck", "car", "bus"],
            "teacher": None,
        },
    ),
    Case(
        "another scale of the images",
        TargetsUnfit,
        ("image level 0", "camera pixels", "another scale or crop"),
        {"inputs.scale": 0.4},
    ),
    Case("another crop", TargetsUnfit, ("image level 0", "(6, 16, 8, 32)"), {"inputs.pad_hw": (32, 128)}),
    Case(
        "another range",
        TargetsUnfit,
        ("BEV maps", "-40.0", "-51.2"),
        {"model.point_cloud_range": (-40.0, -40.0, -5.0, 40.0, 40.0, 3.0)},
    ),
    Case(
        "a BEV map that cannot be lifted",
        TargetsUnfit,
        ("(16, 6, 6)", "(16, 16, 16)", "2, 4"),
        {"model.pts_bbox_head.bev_hw": (6, 6)},
    ),
    Case(
        "other queries",
        TargetsUnfit,
        ("query term", "(2, 10, 10)"),
        {"model.pts_bbox_head.num_queries": 10},
    ),
    Case(
        "a head of other queries",
        TargetsUnfit,
        ("query_embedding.weight: (10, 32)", "init_from_teacher='none'"),
        {"model.pts_bbox_head.num_queries": 10, "distiller.terms": {"_delete_": True, "pv_divergence": {}}},
    ),
    Case(
        "another range of the queries",
        TargetsUnfit,
        ("point_cloud_range: the student's", "-40.0", "the head cannot start"),
        {
            "model.point_cloud_range": (-40.0, -40.0, -5.0, 40.0, 40.0, 3.0),
            "distiller.terms": {"_delete_": True},
        },
    ),
    Case(
        "everything at once",
        TargetsUnfit,
        ("image level 2", "BEV maps: the student's covers", "cannot be lifted", "query term"),
        {
            "inputs.scale": 0.4,
            "model.point_cloud_range": (-40.0, -40.0, -5.0, 40.0, 40.0, 3.0),
            "model.pts_bbox_head.bev_hw": (6, 6),
            "model.pts_bbox_head.num_queries": 10,
        },
    ),
    Case("no store named", ConfigInvalid, ("--cache", "--teacher-source live"), options={"cache": None}),
    Case("no store there", StoreNotFound, ("nowhere.zarr",), options={"cache": "nowhere.zarr"}),
    Case(
        "a live teacher without weights",
        ConfigInvalid,
        ("--teacher-checkpoint",),
        options={"teacher_source": "live", "teacher_checkpoint": None},
    ),
    Case(
        "no teacher checkpoint there",
        CheckpointMismatch,
        ("no checkpoint file", "gone.pth"),
        options={"teacher_checkpoint": "gone.pth"},
    ),
    Case("no such split", SplitMismatch, ("mini_val",), options={"split": "no_such_split"}),
    Case(
        "cfg-options that do not fit",
        ConfigInvalid,
        ("--cfg-options", "class_names"),
        options={"cfg_options": {"model.class_names.first": 1}},
    ),
    Case("no config", ConfigInvalid, ("no config file",), {"teacher": "gone.py"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_refused(workshop, case):
    said = failure(workshop, case.error, case.config, **case.options)
    for words in case.says:
        assert words in said, said


@pytest.mark.parametrize("text", ["train_cfg.max_epochs", "=3", ""])
def test_options_need_a_key_and_a_value(text):
    with pytest.raises(ConfigInvalid, match="KEY=VALUE"):
        parsed_options([text])


def test_options_are_literals_or_text():
    assert parsed_options(["a=1", "b.c=(2, 'x')", "d=bf16", "e=a=b", "f=None"]) == {
        "a": 1,
        "b.c": (2, "x"),
        "d": "bf16",
        "e": "a=b",
        "f": None,
    }


@pytest.mark.parametrize(
    ("arrays", "term", "group"),
    [(("bev", "queries"), "pv_generation", "pv"), (("pv", "queries"), "bev_heatmap", "bev")],
)
def test_a_store_that_lacks_what_a_term_reads(workshop, arrays, term, group):
    said = failure(workshop, TargetsUnfit, cache=str(workshop.store("exact", arrays)))
    line = next(line for line in said.splitlines() if line.strip().startswith(term))
    assert f"--arrays that name {group}" in line


def test_without_queries_in_the_store_every_reader_of_them_is_named(workshop):
    said = failure(workshop, TargetsUnfit, cache=str(workshop.store("exact", ("bev",))))
    for term in ("pv_divergence", "pv_generation", "focal", "query"):
        assert f"  {term} needs" in said
    # Areas come from the detections, which every store has.
    for term in ("bev_heatmap", "bev_generation"):
        assert f"{term} needs" not in said


def test_areas_of_the_ground_truth_alone_read_no_detections(workshop):
    distiller = {
        "terms": {"bev_generation": {}},
        "areas": {"queries": False},
        "init_from_teacher": "none",
    }
    config = workshop.student_config("ground-truth", distiller=distiller)
    assert prepare(workshop.options(config, cache=str(workshop.store("exact", ("bev",))))).transforms


def test_whole_maps_are_not_to_be_had_from_focal(workshop):
    said = failure(workshop, TargetsUnfit, cache=str(workshop.store("focal")))
    line = next(line for line in said.splitlines() if line.strip().startswith("pv_divergence"))
    assert "compact or exact" in line


@pytest.mark.parametrize(
    "areas", [{"min_score": 0.05}, {"at_most": 400}, {"bev_margin_m": 40.0}, {"pv_margin_cells": 1.5}]
)
def test_areas_wider_than_what_focal_kept(workshop, areas):
    distiller = {"terms": ALL_TERMS_BUT_PV, "areas": areas}
    said = failure(workshop, TargetsUnfit, {"distiller": distiller}, cache=str(workshop.store("focal")))
    assert f"areas.{next(iter(areas))}: {next(iter(areas.values())):g}" in said


def test_a_heatmap_reaches_further_than_narrow_areas(workshop):
    spec = TargetReader(workshop.store("focal")).spec
    narrow = replace(spec, focal=replace(spec.focal, areas={**spec.focal.areas, "bev_margin_m": 1.0}))
    areas = vars(AreaOptions())
    check_areas(spec, areas, heatmap=True)
    check_areas(narrow, areas)
    with pytest.raises(TargetsUnfit, match=r"bev_heatmap: its heatmap reaches 6\.4 m"):
        check_areas(narrow, areas, heatmap=True)


def test_another_teacher_is_refused_by_the_part_that_differs(workshop, tmp_path):
    config = Config.fromfile(workshop.teacher_config)
    config.model.pts_bbox_head.dropout = 0.2
    config.dump(tmp_path / "other.py")
    said = failure(workshop, FingerprintMismatch, {"teacher": str(tmp_path / "other.py")})
    assert "detector config" in said
    assert "checkpoint" not in said.split("Dump again")[0]

    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp_path / "other.pth")
    said = failure(workshop, FingerprintMismatch, teacher_checkpoint=str(tmp_path / "other.pth"))
    assert "checkpoint" in said


def test_the_right_teacher_checkpoint_is_accepted(workshop):
    options = workshop.options(workshop.student_config(), teacher_checkpoint=str(workshop.checkpoint))
    assert prepare(options).model is not None


def test_another_dataset_version_is_refused(workshop, tmp_path):
    root = tmp_path / "nuscenes"
    root.mkdir()
    for entry in workshop.dataroot.iterdir():
        (root / ("v1.0-other" if entry.name == VERSION else entry.name)).symlink_to(entry)
    with pytest.raises(CacheError) as caught:
        prepare(
            workshop.options(
                workshop.student_config(),
                dataroot=str(with_splits(root, SCENES)),
                version="v1.0-other",
                split="mine",
            )
        )
    assert isinstance(caught.value, FingerprintMismatch)
    assert "dataset version" in str(caught.value)


def with_splits(root, scenes):
    """The dataroot with a table folder of its own and a split in it."""
    tables = (root / "v1.0-other").resolve()
    (root / "v1.0-other").unlink()
    (root / "v1.0-other").mkdir()
    for table in set(tables.iterdir()) - {tables / "splits.json"}:
        (root / "v1.0-other" / table.name).symlink_to(table)
    (root / "v1.0-other" / "splits.json").write_text(json.dumps({"mine": list(scenes)}))
    return root


@pytest.mark.parametrize("lost", ["optim_wrapper", "param_scheduler", "train_cfg"])
def test_a_config_without_a_schedule(workshop, tmp_path, lost):
    path = workshop.student_config("unscheduled")
    config = Config.fromfile(path)
    config._cfg_dict.pop(lost)
    config.dump(path)
    with pytest.raises(ConfigInvalid, match=f"{lost}.*schedule_24ep"):
        distill(workshop.options(path, tmp_path))


@pytest.mark.parametrize(("amp", "says"), [("fp8", "fp16, bf16 or None"), ("fp16", "needs a GPU")])
def test_a_precision_that_cannot_be(workshop, tmp_path, amp, says):
    if torch.cuda.is_available() and amp == "fp16":
        pytest.skip("there is a GPU, which can")
    with pytest.raises(ConfigInvalid, match=says):
        distill(workshop.options(workshop.student_config(), tmp_path, cfg_options={"amp": amp}))


def test_a_rate_for_parameters_that_are_not_there(capsys):
    rates = {"paramwise_cfg": {"custom_keys": {"img_backbon.": {"lr_mult": 0.1}, "img_neck": {}}}}
    warn_of_idle_rates(
        rates, torch.nn.ModuleDict({"img_backbone": torch.nn.Linear(1, 1), "img_neck": torch.nn.Linear(1, 1)})
    )
    said = capsys.readouterr()
    assert "custom_keys.img_backbon.: no parameter" in said.out + said.err
    assert "did you mean img_backbone?" in said.out + said.err
    assert "img_neck" not in said.out + said.err
