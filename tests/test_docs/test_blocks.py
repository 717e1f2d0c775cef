"""Every command block of README and docs: it runs on a small dataset, or says what it needs and parses."""

from __future__ import annotations

import ast
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from doc_blocks import NEEDS, NOT_COMMANDS, ROOT, Block, Ours, all_blocks, commands_of, ours, parse

from cache_schema.reader import TargetReader
from camera3d.detectors.builder import load_config
from synthetic_nuscenes import generate
from train.engine.options import parsed_options

BLOCKS = all_blocks()
# What the pages say of nuScenes, and what is in its place here.
TOKEN, SCENE = "ca9a282c9e77460f8360f564131a8af5", "scene-0061"
PROFILES = ("exact", "compact", "focal")
LINKED = ("configs", "cache_schema", "extract", "train", "synthetic_nuscenes", "camera3d")
# What makes a command small, behind its own arguments.
SMALL = {
    "synthetic_nuscenes.__main__": ["--scenes", "2", "--seconds", "1.5", "--image-size", "126x224"],
    "extract.dump_teacher": ["--workers", "0", "--threads", "1"],
    "train.evaluate": ["--workers", "0"],
}
SMALL |= {
    key: ["--workers", "0", "--val-split", "none"]
    for key in ("train.distill_from_cache", "train.train_detector")
}
ONE_EPOCH = "train_cfg.max_epochs=1"
# A key that a config may leave out.
KEYS = (ROOT / "docs" / "reference" / "config-keys.md").read_text()


def named(kind: str) -> list:
    return [pytest.param(block, id=block.name) for block in BLOCKS if block.kind == kind]


def test_every_block_says_what_it_is(capsys):
    """How many there are of each kind: a block that stops being run would show here."""
    for block in BLOCKS:
        assert block.language in {"bash", "python", *NOT_COMMANDS}, block.name
        if block.mark and block.mark[0] == "needs":
            assert block.mark[1] in NEEDS, f"{block.name}: {block.mark[1]}"
    kinds = Counter(block.kind for block in BLOCKS)
    with capsys.disabled():
        pass
    assert kinds["run"] >= 16, kinds
    assert kinds["parse"] >= 16, kinds


@pytest.mark.parametrize("block", [*named("parse"), *named("run")])
def test_commands_of_a_block_exist(block: Block, monkeypatch):
    """Scripts, options, configs and config keys are there; Python compiles."""
    monkeypatch.chdir(ROOT)
    if block.language == "python":
        ast.parse(block.text)
        return
    found = commands_of(block.text)
    assert found, block.name
    for command in filter(None, map(ours, found)):
        args = parse(command, monkeypatch)
        config = getattr(args, "config", None)
        if config is not None:
            assert Path(config).is_file(), f"{block.name}: {config}"
        for key in parsed_options(getattr(args, "cfg_options", [])):
            known = has_key(load_config(config), key) or f"| `{key}` |" in KEYS
            assert known, f"{block.name}: {config} has no {key}"


@pytest.mark.parametrize("block", named("elsewhere"))
def test_a_block_that_another_test_runs_compiles(block: Block):
    assert (ROOT / block.mark[1]).exists(), block.name
    ast.parse(block.text)


def has_key(config: object, key: str) -> bool:
    """Whether a config has a dotted key, with numbers for places in a list."""
    for part in key.split("."):
        try:
            config = config[int(part) if isinstance(config, list) else part]
        except (KeyError, IndexError, ValueError):
            return False
    return True


class Workshop:
    """A dataset of two scenes, and a store of it in every profile. Each page works in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pages = folder, {}
        data = folder / "data" / "small"
        generate(data, scenes=2, seconds=1.5, image_hw=(126, 224), processes=1)
        config = str(ROOT / "configs" / "demo" / "teacher.py")
        for profile in PROFILES:
            place = ["--dataroot", str(data), "--version", "v1.0-synthetic", "--split", "synthetic_train"]
            store = ["--out", str(folder / f"{profile}.zarr"), "--profile", profile]
            weights = ["--checkpoint", str(ROOT / "configs" / "demo" / "teacher.pth")]
            call(Ours("extract.dump_teacher", (config, *weights, *place, *store)))
        reader = TargetReader(folder / "exact.zarr")
        self.token, self.scene = reader.sample_tokens[0], next(iter(reader.scenes))

    def page(self, block: Block) -> Path:
        """The folder of a block's page, made when the first one asks."""
        folder = self.folder / block.page.stem
        if not folder.is_dir():
            folder.mkdir()
            for name in LINKED:
                (folder / name).symlink_to(ROOT / name)
            (folder / "data").symlink_to(self.folder / "data")
            (folder / "teacher.zarr").symlink_to(self.folder / "exact.zarr")
            (folder / "other.zarr").symlink_to(self.folder / "compact.zarr")
        return folder

    def fitted(self, text: str) -> str:
        """A block with the names of what is here."""
        return text.replace(TOKEN, self.token).replace(SCENE, self.scene)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("block", named("run"))
def test_a_block_runs(block: Block, workshop: Workshop, monkeypatch):
    folder = workshop.page(block)
    monkeypatch.chdir(folder)
    text = workshop.fitted(block.text)
    if block.language == "python":
        run_python(block, text, folder, workshop)
        return
    for command in filter(None, map(ours, commands_of(text))):
        code = call(command)
        # Two profiles of one teacher differ, which diff says with 1.
        expected = {0, 1} if command.argv[:1] == ("diff",) else {0}
        assert code in expected, f"{block.name}: {command}"


def run_python(block: Block, text: str, folder: Path, workshop: Workshop) -> None:
    """A block after the first one of its page, in one namespace; with the store that its mark names."""
    blocks = [other for other in BLOCKS if other.page == block.page and other.kind == "run"]
    first = next(other for other in blocks if other.language == "python")
    if block.mark is not None:
        profile = block.mark[1].split()[1]
        store = folder / "teacher.zarr"
        store.unlink()
        store.symlink_to(workshop.folder / f"{profile}.zarr")
        text = f"{workshop.fitted(first.text).split(SPLIT)[0]}\n{text}"
    exec(compile(text, block.name, "exec"), {"__name__": "block"})


# Of the page on the format: what opens a scene, before what only reads arrays of profile exact.
SPLIT = "bev_feats ="


def call(command: Ours) -> int:
    """Run a command of ours in this process, made small."""
    argv = list(command.argv)
    if "--help" in argv:
        with pytest.raises(SystemExit) as done:
            import_module(command.module).main(argv)
        return done.value.code or 0
    options = argv.index("--cfg-options") if "--cfg-options" in argv else len(argv)
    small = SMALL.get(command.module, [])
    if command.module.startswith("train.") and command.module != "train.evaluate":
        argv = [*argv[:options], *small, "--cfg-options", *argv[options + 1 :], ONE_EPOCH]
    else:
        argv += small
    out = Path(argv[argv.index("--out") + 1]) if "--out" in argv else None
    if out is not None and out.is_symlink():
        out.unlink()  # a page's own store takes the place of the shared one
    return import_module(command.module).main(argv)
