"""A finished store has one digest, and who expects another is refused."""

import hashlib
import json
import multiprocessing
import pickle
import shutil

import pytest
from corruption_cases import HEAD, sealed_store
from store_cases import sample_list, sample_values, small_spec, small_store, write_scene

from cache_schema import inspect_cache
from cache_schema.errors import Corrupt, DigestMismatch, SpecInvalid, StoreNotFound
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.seal import read_seal
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 2, "scene-0002": 1}
OTHER = "0123456789abcdef" * 4


@pytest.fixture
def store(tmp_path):
    return sealed_store(tmp_path / "teacher.zarr", SCENES)


def dump_part(path, scenes):
    writer = StoreWriter.open(path)
    writer.write_teacher_head(HEAD)
    for name in scenes:
        write_scene(writer, name, SCENES[name])


def test_it_is_that_of_the_seal_and_known_everywhere(store, capsys):
    digest = hashlib.sha256((store / "sealed.json").read_bytes()).hexdigest()
    assert read_seal(store).digest == digest == TargetReader(store).digest == verify(store).digest
    assert inspect_cache.main(["info", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest
    for command in ("info", "verify"):
        assert inspect_cache.main([command, str(store)]) == 0
        assert f" {digest}\n" in capsys.readouterr().out


def test_equal_stores_have_equal_ones_whoever_wrote_them(store, tmp_path):
    path = tmp_path / "by two.zarr"
    writer = StoreWriter.create(path, small_spec(), planned=SCENES)
    spawned = multiprocessing.get_context("spawn")
    processes = [spawned.Process(target=dump_part, args=(path, [name])) for name in SCENES]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert writer.seal()
    assert TargetReader(path).digest == TargetReader(store).digest


@pytest.mark.parametrize("change", ["a value", "the head", "the plan"])
def test_stores_that_differ_have_others(store, tmp_path, change):
    scenes = {"scene-0001": 2} if change == "the plan" else SCENES
    writer = StoreWriter.create(tmp_path / "other.zarr", small_spec(), planned=scenes)
    shift = 1 if change == "the head" else 0
    writer.write_teacher_head({name: values + shift for name, values in HEAD.items()})
    for name, n_samples in scenes.items():
        samples = sample_list(name, n_samples)
        with writer.scene(name, f"{name}-scene-token", samples) as scene:
            for token, _ in samples:
                values = sample_values(token)
                if change == "a value" and token == samples[0][0]:
                    values["can_bus"][3] += 1
                scene.append(token, values)
    writer.seal()
    assert TargetReader(writer.path).digest != TargetReader(store).digest


@pytest.mark.parametrize("length", [12, 30, 64])
def test_the_expected_store_opens(store, length):
    digest = TargetReader(store).digest
    reader = TargetReader(store, expect_digest=digest[:length])
    assert len(reader) == 3


def test_another_store_is_refused(store):
    digest = TargetReader(store).digest
    last_digit_differs = digest[:-1] + ("1" if digest[-1] == "0" else "0")
    for expected in (OTHER, OTHER[:12], last_digit_differs):
        with pytest.raises(DigestMismatch) as caught:
            TargetReader(store, expect_digest=expected)
        for words in (str(store), f"expected digest  {expected}", digest, "info"):
            assert words in str(caught.value)


def test_a_store_that_is_not_sealed_is_refused(tmp_path):
    store = small_store(tmp_path / "teacher.zarr", {"scene-0001": 1})
    assert TargetReader(store).digest is None
    with pytest.raises(DigestMismatch, match=r"not sealed(.|\n)*dump to the end"):
        TargetReader(store, expect_digest=OTHER)


@pytest.mark.parametrize("expected", ["", "0123456789a", "x" * 64, OTHER + "0", OTHER.upper()])
def test_what_can_be_no_digest(store, expected):
    with pytest.raises(SpecInvalid, match=r"expect_digest +expected the first 12 to 64 small hexadecimal"):
        TargetReader(store, expect_digest=expected)


def test_a_worker_reads_the_store_that_its_parent_opened(store, tmp_path):
    pickled = pickle.dumps(TargetReader(store))
    assert len(pickle.loads(pickled)) == 3
    shutil.rmtree(store)
    shutil.copytree(sealed_store(tmp_path / "other.zarr", {"scene-0001": 2}), store)
    with pytest.raises(DigestMismatch):
        pickle.loads(pickled)


def test_a_head_that_was_not_sealed_is_not_read(store, tmp_path, capsys):
    writer = StoreWriter.create(tmp_path / "headless.zarr", small_spec(), planned={"scene-0001": 1})
    write_scene(writer, "scene-0001", 1)
    writer.seal()
    shutil.copytree(store / "teacher_head", writer.path / "teacher_head")
    with pytest.raises(StoreNotFound, match="sealed without a teacher head"):
        TargetReader(writer.path).read_teacher_head()
    assert inspect_cache.main(["info", str(writer.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["teacher_head"] is None


def test_a_sealed_head_that_is_gone_is_damage(store):
    shutil.rmtree(store / "teacher_head")
    with pytest.raises(Corrupt, match="lacks the teacher head that was sealed"):
        TargetReader(store).read_teacher_head()
    assert inspect_cache.main(["info", str(store)]) == 2
