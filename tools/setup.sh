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

say() { printf '\n=== %s\n' "$*"; }

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "setup needs Python 3.11 and '$PYTHON' is not that; call make with PYTHON=/path/to/python3.11" >&2
    exit 2
fi
if ! command -v c++ >/dev/null 2>&1; then
    echo "setup needs a C++ compiler to build mmcv's operators; on Debian: apt-get install g++ python3.11-dev" >&2
    exit 2
fi

[ -x "$BIN/python" ] || { say "Python environment in $VENV"; "$PYTHON" -m venv "$VENV"; }
pip() { "$BIN/python" -m pip "$@"; }
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1

say "1/4  build tools, numpy and torch"
pip install --quiet --progress-bar off setuptools wheel ninja psutil numpy torch

if ! "$BIN/python" -c 'import mmcv, mmcv.ops' 2>/dev/null; then
    say "2/4  mmcv: compiles its operators, about 10 minutes on 2 cores, once (pip keeps the wheel it builds)"
    pip install --progress-bar off mmengine opencv-python-headless
    MMCV_WITH_OPS=1 pip install --no-build-isolation --progress-bar off mmcv
else
    say "2/4  mmcv with its operators is there"
fi

say "3/4  FocalCache and everything else"
pip install --quiet --progress-bar off --no-build-isolation -e '.[test]'
# Both OpenCV packages are required by somebody and unpack into one folder. The headless one goes last: it is
# the one that needs no graphics libraries of the system.
pip install --quiet --progress-bar off --force-reinstall --no-deps opencv-python-headless

say "4/4  consistency"
pip check
touch "$VENV/.ready"
