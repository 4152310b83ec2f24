#!/bin/sh
# Makes wheels for the container image: first "dependencies" (from requirements.lock, hashes checked), then "project".
# Two steps, so that an image builder's cache keeps the dependencies while only the code changes.
set -eu
step=$1
wheels=$2
tools=/tmp/build-tools

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
case $step in
dependencies)
    python3 -m venv "$tools"
    # Binary wheels only: what was built and hashed by its authors is what runs, and no compiler is needed.
    "$tools/bin/pip" download --quiet --only-binary :all: --require-hashes --dest "$wheels" -r requirements.lock
    "$tools/bin/pip" install --quiet --no-index --find-links "$wheels" --upgrade setuptools
    ;;
project)
    "$tools/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$wheels" .
    ;;
*)
    echo "usage: build.sh dependencies|project WHEELS" >&2
    exit 2
    ;;
esac
