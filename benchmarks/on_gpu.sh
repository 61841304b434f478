#!/usr/bin/env bash
# Show what encyclo does on a GPU. The machine with the GPU may have no network.
#
#   benchmarks/on_gpu.sh pack             where pip has a network: wheels and weights, in .gpu/
#   benchmarks/on_gpu.sh run              on the machine with the GPU, with .gpu/ beside it
#   benchmarks/on_gpu.sh run --dry-run    the same steps on a CPU with less data
#
# `pack` writes .gpu/wheels (encyclo, and what the other machine lacks) and .gpu/weights (gemma-3-270m in pieces of at
# most 50 MB, since a transfer may be limited). `run` writes gpu.json and gpu.md into $OUT, or into .gpu/out.
# It takes the names of steps, too: benchmarks/on_gpu.sh run capture memory
#
# bitsandbytes has a wheel of 41 MiB, so it is in a folder of its own, .gpu/bitsandbytes. Where a call may carry 64 MiB, a
# first one has room for it beside the wheels, without the weights: benchmarks/on_gpu.sh run machine tests selftest
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
TARGET_PYTHON=${TARGET_PYTHON:-3.12}
# What a machine with torch, transformers, h5py, jinja2 and scikit-learn lacks.
WHEELS="pydantic pydantic_core annotated-types typing-inspection zarr numcodecs donfig google-crc32c pluggy typer rich
    annotated-doc shellingham lemminflect platformdirs filelock snowballstemmer gguf"

pack() {
    rm -rf .gpu/wheels .gpu/bitsandbytes .gpu/weights
    mkdir -p .gpu/wheels .gpu/bitsandbytes .gpu/weights
    local platforms=()
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
        platforms+=(--platform "${tag}_x86_64")
    done
    local pinned=()
    for name in $WHEELS; do
        pinned+=("$(grep -i "^${name//_/[_-]}==" constraints.txt)")
    done
    download .gpu/wheels "${pinned[@]}"
    download .gpu/bitsandbytes "$(grep -i "^bitsandbytes==" constraints.txt)"
    "$PYTHON" -m pip wheel -q --no-deps -w .gpu/wheels .
    "$PYTHON" benchmarks/gpu_weights.py cut .gpu/weights
    du -sh .gpu/wheels .gpu/bitsandbytes .gpu/weights/*
}

# download FOLDER PACKAGE...: wheels for the other machine. Takes `platforms` from its caller.
download() {
    "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --implementation cp \
        --python-version "$TARGET_PYTHON" "${platforms[@]}" -d "$1" "${@:2}"
}

# install FOLDER PACKAGE: a folder of wheels, unless the package is there.
install() {
    if [ -d "$1" ] && [ ! -d ".gpu/site/$2" ]; then
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
            --target .gpu/site "$1"/*.whl
    fi
}

run() {
    export OUT=${OUT:-$PWD/.gpu/out}
    install .gpu/wheels encyclo
    install .gpu/bitsandbytes bitsandbytes
    [ ! -d .gpu/site ] || export PYTHONPATH=$PWD/.gpu/site PATH=$PWD/.gpu/site/bin:$PATH
    if [ -f .gpu/weights/used_rows.safetensors ] && [ ! -f .gpu/model/model.safetensors ]; then
        "$PYTHON" benchmarks/gpu_weights.py join .gpu/weights .gpu/model
    fi
    "$PYTHON" benchmarks/on_gpu.py "$@"
}

"$@"
