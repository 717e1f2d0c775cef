#!/bin/sh
# Make the virtual environment that `make test` and `make demo` run in. Called by the Makefile when the
# environment is not there yet, or when the files that define it have changed; safe to call again.
#
# Order matters: mmcv has no wheel for this torch and is compiled against the torch that is installed, so torch
# comes first, with a setuptools that still has pkg_resources, and mmcv's build must not be isolated from them.
set -eu

PYTHON=${PYTHON:-python3.11}
VENV=${VENV:-.venv}
BIN="$VENV/bin"

# Prints a line a minute while a command runs.
with_clock() {
    ( minutes=0; while sleep 60; do minutes=$((minutes + 1)); echo "     … $minutes min"; done ) &
    clock=$!
    status=0
    "$@" || status=$?
    kill "$clock" 2>/dev/null || true
    return "$status"
}

cuda_toolkit_fits() {
    command -v nvcc >/dev/null 2>&1 || return 1
    nvcc --version | grep -q "release $(python -c 'import torch; print(torch.version.cuda.split(".")[0])')\."
}

say() { printf '\n=== %s\n' "$*"; }

die() { echo "setup: $*" >&2; exit 2; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
    die "needs Python 3.11 and '$PYTHON' is not that; call make with PYTHON=/path/to/python3.11"
# Debian splits Python: without the first package there is no pip in an environment, without the second no Python.h.
"$PYTHON" -c '
import ensurepip, os, sysconfig
assert os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null &&
    command -v c++ >/dev/null 2>&1 ||
    die "needs pip for environments, Python's headers and a C++ compiler; on Debian:
       apt-get install python3.11-venv python3.11-dev g++"

if ! "$BIN/python" -m pip --version >/dev/null 2>&1; then
    say "Python environment in $VENV"
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
fi
# torch's extension builder looks for ninja on the PATH; without it mmcv is compiled one file at a time.
PATH="$PWD/$BIN:$PATH"
# Relative, because pip splits this variable at spaces.
export PATH PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
pip() { python -m pip "$@"; }

say "1/4  build tools, numpy and torch"
pip install --quiet --progress-bar off setuptools wheel ninja psutil numpy torch

has_ops() { python -c 'import mmcv.ops' >/dev/null 2>&1; }
if has_ops; then
    say "2/4  mmcv with its operators is there"
else
    say "2/4  mmcv: compiles its operators, some 7 minutes on 2 cores, once (pip keeps the wheel it builds)"
    pip install --quiet --progress-bar off mmengine opencv-python-headless
    # mmcv builds for CUDA where torch sees a GPU, which takes the toolkit that this torch was made with.
    if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' && ! cuda_toolkit_fits; then
        echo "No nvcc of torch's CUDA version: building mmcv without CUDA. The detectors then run the PyTorch form"
        echo "of the operators on the GPU. For mmcv's own, install that toolkit, remove $VENV and run this again."
        export CUDA_VISIBLE_DEVICES=
    fi
    # Debug symbols are two thirds of the compilation.
    build_mmcv() { CFLAGS="${CFLAGS:-} -g0" MMCV_WITH_OPS=1 pip install --progress-bar off --no-build-isolation "$@" mmcv; }
    with_clock build_mmcv
    # pip's kept wheel does not know which torch it was built against: build anew when it does not load.
    has_ops || with_clock build_mmcv --force-reinstall --no-deps --no-cache-dir
    has_ops || die "mmcv is installed and its operators do not load; see: $BIN/python -c 'import mmcv.ops'"
fi

say "3/4  FocalCache and everything else"
pip install --quiet --progress-bar off --no-build-isolation -e '.[all,test]'
# Both OpenCV packages are required by somebody and unpack into one folder. The headless one goes last: it is
# the one that needs no graphics libraries of the system.
pip install --quiet --progress-bar off --force-reinstall --no-deps opencv-python-headless

say "4/4  consistency"
pip check
touch "$VENV/.ready"
