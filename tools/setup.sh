#!/bin/sh
# Make the virtual environment that `make test` and `make demo` run in. Called by the Makefile when the
# environment is not there yet, or when the files that define it have changed; safe to call again.
#
# Order matters: mmcv has no wheel for this torch and is compiled against the torch that is installed, so torch
# comes first, with a setuptools that still has pkg_resources, and mmcv's build must not be isolated from them.
# The wheel of a build is kept, one for each Python, torch, GPU and mmcv, and the next clone on this machine takes it.
#
#   TORCH=cpu sh tools/setup.sh    PyTorch without CUDA
#   sh tools/setup.sh --plan       say what would be downloaded and built, and do nothing
set -eu

PYTHON=${PYTHON:-python3.11}
VENV=${VENV:-.venv}
BIN="$VENV/bin"
TORCH=${TORCH:-}
WHEELS=${FOCALCACHE_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/focalcache/wheels}
CPU_TORCH=https://download.pytorch.org/whl/cpu

# Prints a line a minute while a command runs.
with_clock() {
    # Its last sleep outlives the command: it must hold neither the lock (9) nor the pipe of whoever reads this.
    (
        minutes=0
        while sleep 60 >/dev/null 2>&1; do minutes=$((minutes + 1)); echo "     … $minutes min"; done
    ) 9>&- &
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

pinned() { sed -n "s/^$1==//p" constraints.txt; }

# What this will take, before it takes it.
plan() {
    say "Setting up $VENV, once. It takes"
    if [ -x "$BIN/python" ] && "$BIN/python" -c 'import torch' 2>/dev/null; then
        echo "  PyTorch      is there"
    elif [ "$TORCH" = cpu ]; then
        echo "  PyTorch      $(pinned torch) without CUDA: a download of 0.2 GB, 0.8 GB on disk"
    else
        echo "  PyTorch      $(pinned torch), as pip chooses it. On plain Linux that is the one with CUDA: a download of"
        echo "               some 3 GB, 7 GB on disk. Without a GPU, make setup TORCH=cpu takes 0.2 GB instead"
    fi
    echo "  packages     about 1 GB to download where pip has not kept them, 2 GB on disk"
    if [ -x "$BIN/python" ] && has_ops; then
        echo "  mmcv         is there"
    elif ls "$WHEELS"/py311-torch"$(pinned torch)"*-mmcv"$(pinned mmcv)"/*.whl >/dev/null 2>&1; then
        echo "  mmcv         nothing to build: $WHEELS has a wheel, if it was built for this GPU and this PyTorch"
    else
        echo "  mmcv         compiles its operators: 11 minutes of CPU, some 6 on two cores. The wheel is kept in"
        echo "               $WHEELS for the next clone"
    fi
}

has_ops() { "$BIN/python" -c 'import mmcv.ops' >/dev/null 2>&1; }

case "$TORCH" in
    ""|cpu) ;;
    *) die "TORCH=$TORCH: expected cpu, or nothing for the PyTorch that pip chooses" ;;
esac
case "${1:-}" in
    "") ;;
    --plan) plan; exit 0 ;;
    *) die "unknown argument $1: expected --plan or none" ;;
esac

"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
    die "needs Python 3.11 and '$PYTHON' is not that; call make with PYTHON=/path/to/python3.11"
# Debian splits Python: without the first package there is no pip in an environment, without the second no Python.h.
"$PYTHON" -c '
import ensurepip, os, sysconfig
assert os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null &&
    command -v c++ >/dev/null 2>&1 ||
    die "needs pip for environments, Python's headers and a C++ compiler; on Debian:
       apt-get install python3.11-venv python3.11-dev g++"

plan
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
if [ "$TORCH" = cpu ]; then
    python -c 'import sys, torch; sys.exit(torch.version.cuda is None)' 2>/dev/null &&
        die "TORCH=cpu, and $VENV has a PyTorch with CUDA: remove $VENV first"
    # Of equal versions pip takes the one with a local part, 2.13.0+cpu.
    set -- --extra-index-url "$CPU_TORCH"
else
    set --
fi
pip install --quiet --progress-bar off "$@" setuptools wheel ninja psutil numpy torch

# The wheel that fits: operators are compiled for a Python, a torch, the GPU that is there, and a processor.
wheel_key() {
    python -c '
import os, platform, sys, torch
gpu = "sm%d%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else "cpu"
if os.environ.get("FORCE_CUDA") == "1":  # mmcv then builds for these, whatever is there
    gpu = "sm" + "".join(c for c in os.environ.get("TORCH_CUDA_ARCH_LIST", "") if c.isalnum())
print("py%d%d" % sys.version_info[:2], "torch" + torch.__version__, gpu, platform.machine(), "mmcv" + sys.argv[1],
      sep="-")' "$(pinned mmcv)"
}

# Build a wheel in $1 and keep it under its own name only when it is whole. Debug symbols are two thirds of the
# compilation.
build_mmcv() {
    kept=$1; shift
    rm -rf "$kept.part"
    with_clock env CFLAGS="${CFLAGS:-} -g0" MMCV_WITH_OPS=1 python -m pip wheel --progress-bar off \
        --no-build-isolation --no-deps --wheel-dir "$kept.part" "$@" mmcv &&
        rm -rf "$kept" && mv "$kept.part" "$kept"
}

install_mmcv() {
    pip install --quiet --progress-bar off --force-reinstall --no-deps "$1"/mmcv-*.whl &&
        pip install --quiet --progress-bar off mmcv &&  # what it requires
        has_ops
}

if has_ops; then
    say "2/4  mmcv with its operators is there"
else
    pip install --quiet --progress-bar off mmengine opencv-python-headless
    # mmcv builds for CUDA where torch sees a GPU, which takes the toolkit that this torch was made with.
    if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' && ! cuda_toolkit_fits; then
        echo "No nvcc of torch's CUDA version: building mmcv without CUDA. The detectors then run the PyTorch form"
        echo "of the operators on the GPU. For mmcv's own, install that toolkit, remove $VENV and run this again."
        export CUDA_VISIBLE_DEVICES=
    fi
    mkdir -p "$WHEELS" 2>/dev/null || { WHEELS=$PWD/.wheels; mkdir -p "$WHEELS"; }
    kept=$WHEELS/$(wheel_key)
    # One build at a time: the second of two clones waits, and takes the wheel of the first.
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$WHEELS/.lock"
        flock -n 9 || { echo "Another set-up builds mmcv: waiting for its wheel."; flock 9; }
    fi
    if [ -d "$kept" ] && install_mmcv "$kept"; then
        say "2/4  mmcv: took the wheel that was built before, $kept"
    else
        say "2/4  mmcv: compiles its operators, some 6 minutes on 2 cores, once"
        # pip may have kept a wheel that was built against another torch. Only then is there a second try.
        pips_own=$(pip cache list --format abspath mmcv 2>/dev/null || true)
        build_mmcv "$kept"
        if ! install_mmcv "$kept" && [ -n "$pips_own" ]; then
            build_mmcv "$kept" --no-cache-dir
            install_mmcv "$kept" || true
        fi
        has_ops || {
            rm -rf "$kept"
            die "mmcv is installed and its operators do not load; see: $BIN/python -c 'import mmcv.ops'"
        }
    fi
    exec 9>&-
fi

say "3/4  FocalCache and everything else"
pip install --quiet --progress-bar off --no-build-isolation -e '.[all,test]'
# Both OpenCV packages are required by somebody and unpack into one folder. The headless one goes last: it is
# the one that needs no graphics libraries of the system.
pip install --quiet --progress-bar off --force-reinstall --no-deps opencv-python-headless

say "4/4  consistency"
pip check
touch "$VENV/.ready"
