"""Which backend runs, how to override it, and that nothing needs a compiled extension."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from camera3d.errors import Camera3DError
from camera3d.ops import OpBackendError, describe_backends, op_backend, use_backend
from camera3d.ops.backend import ENVIRONMENT_VARIABLE, mmcv_function

MSDA, DCN = "multi_scale_deformable_attention", "modulated_deform_conv2d"
needs_mmcv = pytest.mark.skipif(mmcv_function(DCN) is None, reason="mmcv has no compiled extension")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def test_default_on_the_cpu():
    assert describe_backends("cpu") == {DCN: "pytorch", MSDA: "pytorch"}
    assert describe_backends(torch.device("cpu")) == describe_backends("cpu")


@needs_mmcv
def test_context_beats_environment(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "pytorch")
    assert op_backend(DCN, "cpu") == "pytorch"
    with use_backend("mmcv"):
        assert op_backend(DCN, "cpu") == "mmcv"
        with use_backend("auto"):
            assert op_backend(DCN, "cpu") == "pytorch"
        assert op_backend(DCN, "cpu") == "mmcv"
    assert op_backend(DCN, "cpu") == "pytorch"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "mmcv")
    assert op_backend(DCN, "cpu") == "mmcv"


@needs_mmcv
def test_override_ends_with_an_exception_and_stays_in_its_thread():
    seen = []

    def interrupted():
        with use_backend("mmcv"):
            thread = threading.Thread(target=lambda: seen.append(op_backend(DCN, "cpu")))
            thread.start()
            thread.join()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert seen == ["pytorch"]
    assert op_backend(DCN, "cpu") == "pytorch"


def test_mmcv_where_it_cannot_run():
    with (
        use_backend("mmcv"),
        pytest.raises(OpBackendError, match=r"no multi_scale_.* kernel for cpu.*FOCALCACHE_OPS"),
    ):
        op_backend(MSDA, "cpu")
    assert issubclass(OpBackendError, Camera3DError)


def test_wrong_names(monkeypatch):
    with pytest.raises(OpBackendError, match="'cuda' is not a backend; choose one of auto, mmcv, pytorch"):
        use_backend("cuda").__enter__()
    with pytest.raises(OpBackendError, match="unknown operator"):
        op_backend("conv", "cpu")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "fast")
    with pytest.raises(OpBackendError, match="FOCALCACHE_OPS: 'fast' is not a backend"):
        op_backend(DCN, "cpu")


@pytest.mark.gpu
@needs_cuda
def test_default_on_cuda():
    assert set(describe_backends("cuda").values()) <= {"mmcv", "pytorch"}


def test_works_without_the_compiled_extension():
    code = """
        import sys

        class Block:
            def find_spec(self, name, path=None, target=None):
                if name == "mmcv._ext":
                    raise ModuleNotFoundError("No module named 'mmcv._ext'", name=name)

        sys.meta_path.insert(0, Block())
        import torch
        from camera3d.ops import (
            OpBackendError, describe_backends, modulated_deform_conv2d, multi_scale_deformable_attention,
            op_backend, use_backend,
        )
        for device in ("cpu", "cuda"):
            assert set(describe_backends(device).values()) == {"pytorch"}, describe_backends(device)
        out = modulated_deform_conv2d(
            torch.ones(1, 2, 4, 4), torch.zeros(1, 18, 4, 4), torch.ones(1, 9, 4, 4), torch.ones(3, 2, 3, 3),
            padding=1,
        )
        assert out.shape == (1, 3, 4, 4) and out[0, 0, 1, 1] == 18
        out = multi_scale_deformable_attention(
            torch.ones(1, 4, 1, 3), [(2, 2)], torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1)
        )
        assert out.tolist() == [[[1, 1, 1]]]
        try:
            with use_backend("mmcv"):
                op_backend("modulated_deform_conv2d", "cpu")
        except OpBackendError as error:
            print(error)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "compiled extension cannot be imported" in done.stdout
