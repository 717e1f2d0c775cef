"""A head trained on a store's maps, the layer that it leaves there, a distillation that reads the layer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from bevdepth_stages import make_case
from mmengine.config import Config
from train_cases import ROOT, SPLIT, TERMS, prepare, recorded_losses, weights_of

from cache_schema import inspect_cache
from cache_schema.errors import AlreadyPublished, FingerprintMismatch, SampleMissing, StoreNotFound
from cache_schema.layers import open_layer
from cache_schema.reader import TargetReader
from cache_schema.seal import remove_seal
from camera3d.boxes import decode_official, move_boxes
from camera3d.detectors import build_detector
from camera3d.detectors.protocol import GroundTruth
from camera3d.errors import ConfigInvalid
from extract.dump_teacher import main as dump_command
from train.engine.options import HeadOptions
from train.engine.run import DistillOptions, distill, train_head
from train.evaluate import main as evaluate
from train.targets import TargetsUnfit
from train.train_distillation_head import main as head_command

pytestmark = [pytest.mark.filterwarnings("ignore:nuScenes v1"), pytest.mark.usefixtures("one_thread")]
# After two steps the scores are still close to those of the prior, from 0.014 to 0.029.
MIN_SCORE = 0.0193
NUMBERS = {"num_queries": 12, "decoder_layers": 2, "num_heads": 4, "ffn_dims": 32, "max_detections": 12}


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


@dataclass(frozen=True)
class Layered:
    """A store with a layer, and what made them."""

    family: str
    folder: Path
    dataroot: Path
    version: str
    split: str
    store: Path
    base: dict[str, bytes]  # of the store before it had one

    def options(self, **changes: object) -> HeadOptions:
        given = {
            "config": str(self.folder / "head.py"),
            "dataroot": str(self.dataroot),
            "version": self.version,
            "work_dir": str(self.folder / "head"),
            "workers": 0,
            "cache": str(self.store),
            "layer": "head",
            "min_score": MIN_SCORE,
            "threads": 1,
        }
        return HeadOptions(**{**given, **changes})

    def distillation(self, config: Path, **changes: object) -> DistillOptions:
        given = {name: getattr(self, name) for name in ("version", "split")}
        places = {"config": config, "dataroot": self.dataroot, "cache": self.store}
        given |= {name: str(path) for name, path in places.items()}
        given |= {"work_dir": "unused", "workers": 0, "val_split": "none", "layer": "head"}
        return DistillOptions(**{**given, **changes})

    def student(self, name: str, terms: dict, **options: object) -> Path:
        """A distillation config of these terms."""
        config = Config.fromfile(self.folder / "student.py")
        config.distiller = {"terms": terms, "areas": {"min_score": MIN_SCORE}}
        config.augmentation = None
        config.merge_from_dict(options)
        config.dump(self.folder / f"{name}.py")
        return self.folder / f"{name}.py"


@pytest.fixture(scope="module", params=["bevformer", "bevdepth"])
def layered(request, one_thread, workshop, tmp_path_factory) -> Layered:
    """A head of a BEVFormer's, and of a BEVDepth's store: two steps, then its layer."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bevformer":
        shutil.copytree(workshop.store("exact"), folder / "exact.zarr")
        place = workshop.dataroot, "v1.0-mini", SPLIT
        shutil.copy(workshop.teacher_config, folder / "teacher.py")
        shutil.copy(workshop.student_config("of-a-head"), folder / "student.py")
    else:
        case = make_case(folder, tmp_path_factory.mktemp("nuscenes"), ("exact",))
        place = case.dataroot, case.data[3], case.data[5]
    config = Config.fromfile(folder / "teacher.py")
    config.model = {"type": "DistillationHead", **NUMBERS}
    config.merge_from_dict({"train_cfg": {"max_epochs": 1}, "train_dataloader": {"batch_size": 3}})
    config.optim_wrapper.paramwise_cfg, config.log_interval, config.amp = None, 1, None
    config.auto_scale_lr.enable, config.augmentation = False, None
    config.dump(folder / "head.py")
    store = folder / "exact.zarr"
    made = Layered(request.param, folder, *place, store, contents(store))
    with recorded_losses() as steps:
        assert train_head(made.options()) == store / "layers/head"
    assert len(steps) == -(-len(TargetReader(store)) // 3)
    for losses in steps:
        assert {"loss_cls", "loss_bbox", "d0.loss_cls"} <= set(losses)
        assert losses["loss_bbox"] > 0
        assert all(np.isfinite(value) for value in losses.values())
    return made


@pytest.fixture
def copied(layered, tmp_path) -> Layered:
    """The same with a store of its own."""
    shutil.copytree(layered.store, tmp_path / "exact.zarr")
    return Layered(**{**vars(layered), "store": tmp_path / "exact.zarr"})


def head_of(layered: Layered) -> torch.nn.Module:
    """The trained head, as anybody would load it."""
    spec = open_layer(TargetReader(layered.store), "head").spec
    config = Config.fromfile(layered.folder / "head.py")
    config.model = spec.teacher.config
    head = build_detector(config)
    head.load_state_dict(weights_of(layered.folder / "head/last.pth"))
    return head


def test_the_layer_is_what_the_head_says_of_the_maps(layered):
    reader, head = TargetReader(layered.store), head_of(layered)
    layer = open_layer(reader, "head")
    assert list(layer.scenes) == list(reader.scenes)
    assert {array.frame for array in layer.spec.arrays if array.extent_m} == {
        "ego" if layered.family == "bevdepth" else "lidar"
    }
    kept = 0
    for token in reader.sample_tokens:
        stored = reader[token]
        frame = {name: torch.from_numpy(stored[name])[None] for name in head.inputs}
        with torch.no_grad():
            outputs, _ = head.encode(frame)
            (found,) = head.decode(outputs)
        sample = layer.read_focal(token)
        score = torch.from_numpy(outputs["query_logits"][0, -1].half().numpy()).float().sigmoid().amax(-1)
        np.testing.assert_array_equal(sample.query_index, np.flatnonzero(score >= MIN_SCORE))
        for name, values in sample.queries.items():
            wanted = outputs[name][0][:, sample.query_index].numpy()
            np.testing.assert_allclose(values, wanted.astype(values.dtype), rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(layer[token]["detection_boxes"], found.boxes, rtol=1e-4, atol=1e-4)
        kept += len(sample.query_index)
    assert 0 < kept < 12 * len(reader), "the case is only one when some queries are kept and others are not"


def test_detections_are_in_the_lidar_frame(layered):
    reader, head = TargetReader(layered.store), head_of(layered)
    stored = reader[reader.sample_tokens[0]]
    frame = {name: torch.from_numpy(stored[name])[None] for name in head.inputs}
    with torch.no_grad():
        outputs, _ = head.encode(frame)
        (found,) = head.decode(outputs)
    queries = decode_official(outputs["query_boxes"][0, -1])
    if layered.family == "bevdepth":
        queries = move_boxes(queries, torch.linalg.inv(frame["lidar2ego"][0].double()))
    assert all((queries - box).abs().amax(-1).min() < 1e-4 for box in found.boxes)


def test_ground_truth_beside_the_map_teaches_nothing(layered):
    head = head_of(layered)
    stored = TargetReader(layered.store)[TargetReader(layered.store).sample_tokens[0]]
    frame = {name: torch.from_numpy(stored[name])[None] for name in head.inputs}
    outputs, _ = head.encode(frame)
    far = torch.tensor([[500.0, 0, 0, 4, 2, 1.5, 0, 0, 0]])
    none = head.detection_loss(outputs, [GroundTruth(far[:0], torch.zeros(0, dtype=torch.long))])
    beside = head.detection_loss(outputs, [GroundTruth(far, torch.zeros(1, dtype=torch.long))])
    assert all(torch.equal(none[name], beside[name]) for name in none)
    assert none["loss_bbox"] == 0


def test_the_store_is_as_it_was_and_all_is_verified(layered, capsys):
    after = contents(layered.store)
    assert {path: data for path, data in after.items() if not path.startswith("layers/")} == layered.base
    assert inspect_cache.main(["verify", str(layered.store)]) == 0
    assert "layer head" in capsys.readouterr().out
    assert inspect_cache.main(["info", str(layered.store)]) == 0
    assert f"head, {len(TargetReader(layered.store))} samples" in capsys.readouterr().out


def test_a_distillation_reads_the_layer(layered, tmp_path):
    terms = {"bev_generation": {}, "focal": {}}
    if layered.family == "bevformer":
        terms = TERMS
    options = layered.distillation(layered.student("distilled", terms), work_dir=str(tmp_path / "work"))
    with recorded_losses() as steps:
        distill(options)
    for losses in steps:
        assert losses["loss_focal"] > 0
        assert losses["loss_bev_generation"] > 0
        assert all(np.isfinite(value) for value in losses.values())
    if layered.family == "bevformer":
        assert all(losses["loss_query_logits"] > 0 for losses in steps)


def test_the_focal_term_looks_through_the_head(layered):
    """Its projections are the layer's; read from the teacher's own map, the loss is next to zero."""
    got = prepare(layered.distillation(layered.student("focal", {"focal": {}})))
    head, focal = weights_of(layered.folder / "head/last.pth"), got.model.terms["focal"].sampling
    key = "pts_bbox_head.transformer.decoder.layers.{}.attentions.1.value_proj.weight"
    for number, projection in enumerate(focal.value_projections):
        assert torch.equal(projection.weight, head[key.format(number)])
        assert not projection.weight.requires_grad
    batch = got.batch(layered.dataroot)
    targets = got.model.source.targets(batch["inputs"], batch["data_samples"], batch["extras"])
    areas = got.model.areas(targets, batch["inputs"], batch["data_samples"], batch["extras"])
    own = TargetReader(layered.store)[batch["data_samples"][0].sample_token]
    teacher_map = torch.from_numpy(own["bev_feats"])[None].float()
    arrays = [targets.queries(name) for name in ("sampling_locations", "attention_weights", "focal_feats")]
    confidence = [area.confidence for area in areas]
    alike = focal(teacher_map, *arrays, confidence)
    other = focal(teacher_map.flip(-1), *arrays, confidence)
    assert alike < 1e-3 * other


def test_a_students_queries_start_from_the_head(layered):
    if layered.family != "bevformer":
        pytest.skip("its student has no queries")
    got = prepare(layered.distillation(layered.student("start", {"query": {}})))
    student, head = got.model.student.state_dict(), weights_of(layered.folder / "head/last.pth")
    for key in (
        "query_embedding.weight",
        "cls_branches.1.6.weight",
        "transformer.decoder.layers.0.norms.0.bias",
    ):
        assert torch.equal(student[f"pts_bbox_head.{key}"], head[f"pts_bbox_head.{key}"])


def test_the_query_term_needs_a_students_queries(layered):
    if layered.family != "bevdepth":
        pytest.skip("its student has queries")
    with pytest.raises(TargetsUnfit, match="query term: the student has no query_logits"):
        prepare(layered.distillation(layered.student("queries", {"query": {}})))


def test_the_named_layer_is_read(copied, tmp_path):
    train_head(copied.options(layer="second", seed=1, work_dir=str(tmp_path / "second")))
    assert inspect_cache.main(["verify", str(copied.store)]) == 0
    config = copied.student("named", {"focal": {}}, cache_layer="second")
    key = "pts_bbox_head.transformer.decoder.layers.0.attentions.1.value_proj.weight"
    for layer, folder in ((None, tmp_path / "second"), ("head", copied.folder / "head")):
        model = prepare(copied.distillation(config, layer=layer)).model
        (projection, *_) = model.terms["focal"].sampling.value_projections
        assert torch.equal(projection.weight, weights_of(folder / "last.pth")[key])
    with pytest.raises(StoreNotFound, match="its layers: head, second"):
        prepare(copied.distillation(config, layer="third"))


def test_a_layer_of_more_arrays_of_the_teacher(layered, workshop, tmp_path):
    """Maps that came later give the losses of a store that had them from the beginning."""
    if layered.family != "bevformer":
        pytest.skip("the workshop's stores are the other family's")
    store = tmp_path / "queries.zarr"
    shutil.copytree(workshop.store("exact", ("queries",)), store)
    dump = [str(workshop.teacher_config), "--checkpoint", str(workshop.checkpoint), "--out", str(store)]
    dump += ["--dataroot", str(workshop.dataroot), "--version", layered.version, "--split", layered.split]
    assert (
        dump_command([*dump, "--arrays", "bev,pv", "--layer", "maps", "--workers", "0", "--threads", "1"])
        == 0
    )
    config = workshop.student_config("of-maps", **{"train_cfg.max_epochs": 1})
    found = []
    for place in ({"cache": str(store), "layer": "maps"}, {}):
        with recorded_losses() as steps:
            distill(workshop.options(config, tmp_path / f"work-{len(found)}", **place))
        found.append(steps)
    assert found[0] == found[1]
    assert found[0][0]["loss_query_logits"] > 0


def test_areas_beyond_what_the_layer_kept_are_refused(layered):
    config = layered.student("lower", {"focal": {}}, **{"distiller.areas.min_score": 0.001})
    with pytest.raises(TargetsUnfit, match=r"beyond what the layer kept:\n.*the layer was made with 0\.0193"):
        prepare(layered.distillation(config))


def test_show_draws_the_layer(layered, tmp_path, capsys):
    token = TargetReader(layered.store).sample_tokens[0]
    png = tmp_path / "shown.png"
    command = ["show", str(layered.store), token, "--layer", "head", "--min-score", str(MIN_SCORE)]
    assert inspect_cache.main([*command, "--png", str(png), "--dataroot", str(layered.dataroot)]) == 0
    said = capsys.readouterr().out
    assert "queries and boxes of  head" in said
    assert png.stat().st_size > 10_000


def test_the_heads_detections_are_scored(layered, capsys):
    place = ["--dataroot", str(layered.dataroot), "--version", layered.version, "--split", layered.split]
    if layered.family == "bevdepth":
        assert evaluate(["--from-cache", str(layered.store), "--layer", "head", *place]) == 0
        assert "NDS" in capsys.readouterr().out
    assert evaluate(["--results", "none.json", "--layer", "head", *place]) == 2
    assert "--layer concerns a store" in capsys.readouterr().err


def test_killed_while_it_writes_and_resumed(layered, tmp_path):
    """The process dies in the middle of the layer; resumed, it has the bytes of one that was left alone."""
    store = tmp_path / "exact.zarr"
    shutil.copytree(layered.store, store, ignore=shutil.ignore_patterns("layers"))
    options = layered.options(cache=str(store), work_dir=str(tmp_path / "work"))
    arguments = [options.config, "--cache", str(store), "--layer", "head", "--dataroot", options.dataroot]
    arguments += ["--version", options.version, "--work-dir", options.work_dir, "--workers", "0"]
    arguments += ["--min-score", str(MIN_SCORE), "--threads", "1"]
    command = [sys.executable, str(Path(__file__).parents[1] / "head_killed.py"), "3", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert not (store / "layers/head/sealed.json").exists()
    with pytest.raises(StoreNotFound, match="is not finished"):
        open_layer(TargetReader(store), "head")
    assert head_command([*arguments, "--resume"]) == 0
    assert contents(store) == contents(layered.store)


class TestRefused:
    """Each before the first step."""

    def test_a_layer_that_is_there(self, layered):
        with pytest.raises(AlreadyPublished, match="has a layer head: give another --layer, or go on"):
            train_head(layered.options())
        with pytest.raises(AlreadyPublished, match="--work-dir of its head"):
            train_head(layered.options(work_dir="elsewhere", resume=True))

    def test_another_head_under_the_same_name(self, layered, tmp_path):
        shutil.copytree(layered.folder / "head", tmp_path / "head")
        changed = layered.options(work_dir=str(tmp_path / "head"), resume=True, min_score=0.5)
        with pytest.raises(FingerprintMismatch, match=r"begun with something else\n  focal min_score"):
            train_head(changed)

    def test_a_store_that_is_not_sealed(self, copied, tmp_path):
        remove_seal(copied.store)
        with pytest.raises(SampleMissing, match="only a finished store gets layers"):
            train_head(copied.options(layer="new", work_dir=str(tmp_path / "work")))

    def test_a_config_of_no_head(self, layered, tmp_path):
        with pytest.raises(ConfigInvalid, match="model must be of type DistillationHead"):
            train_head(layered.options(config=str(layered.folder / "teacher.py"), work_dir=str(tmp_path)))

    def test_a_score_that_is_none(self, layered):
        with pytest.raises(ConfigInvalid, match=r"--min-score 1\.5: expected"):
            train_head(layered.options(min_score=1.5))

    def test_another_teachers_images(self, layered, tmp_path):
        changed = {"cfg_options": {"inputs.mean": (1.0, 2.0, 3.0)}}
        with pytest.raises(FingerprintMismatch, match="input pipeline"):
            train_head(layered.options(layer="new", work_dir=str(tmp_path), **changed))

    @pytest.mark.parametrize(
        ("profile", "arrays", "says"),
        [("focal", ("bev", "pv", "queries"), "profile focal"), ("exact", ("queries",), "name bev")],
    )
    def test_a_store_without_a_whole_map(self, layered, workshop, tmp_path, profile, arrays, says):
        if layered.family != "bevformer":
            pytest.skip("the workshop's stores are the other family's")
        store = workshop.store(profile, arrays)
        with pytest.raises(TargetsUnfit, match=says):
            train_head(layered.options(cache=str(store), work_dir=str(tmp_path / "work")))

    def test_a_live_teacher_has_no_layer(self, layered):
        live = {"cache": None, "teacher_source": "live", "teacher_checkpoint": "x.pth"}
        with pytest.raises(ConfigInvalid, match="a layer is one of a store"):
            prepare(layered.distillation(layered.student("live", {"focal": {}}), **live))


def test_a_dry_run_writes_nothing(copied, tmp_path):
    before = contents(copied.store)
    said = train_head(copied.options(layer="new", work_dir=str(tmp_path / "work"), dry_run=True))
    assert "dry run: nothing was written" in said
    assert "layers/new, " in said
    assert contents(copied.store) == before
    assert not (tmp_path / "work").exists()
