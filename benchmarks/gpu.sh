#!/usr/bin/env bash
# All that there is to measure on a machine with an NVIDIA GPU, in one command: builds tilefuse for that GPU, runs the
# whole suite on "cuda", compute-sanitizer's four tools on a part of it, and the benchmarks against CuPy and PyTorch.
#
# usage: benchmarks/gpu.sh [--python PYTHON [--wheel FILE]] [--only STEPS] [OUTPUT.json]
#
#   --python PYTHON   use what this interpreter has, and fetch nothing: for machines without network. It needs pip,
#                     scikit-build-core, pybind11, cmake, ninja, and what tilefuse and its tests import; tilefuse is
#                     installed beside it, in a temporary folder. Else: a new environment, with packages from PyPI.
#   --wheel FILE      install this wheel of tilefuse, which has kernels for the GPU, instead of building one
#   --only STEPS      of tests,memcheck,racecheck,initcheck,synccheck,kernels,kernel_times,training (all)
#   OUTPUT.json       benchmarks/results/gpu-<device>.json by default; written anew after every step
#
# The GPU is the first of CUDA_VISIBLE_DEVICES, else the first of nvidia-smi. It should have nothing else to do; clocks
# are recorded and not set. nvcc comes from PATH, CUDA_HOME (/usr/local/cuda) or, for drivers from 580 on, PyPI. What is
# missing of CuPy, PyTorch and compute-sanitizer is left out, and named in the result. Status: 1 if a step failed, 2 if
# there was nothing to run on.
set -uo pipefail
here=$PWD

# What the sanitizers run, under which each launch takes many times longer: tests that launch every kernel, at its sizes,
# layouts and edges of tiles. They make 3 of 10 launches of tests/ops and test_program.py; the others sweep over more
# values and shapes, or compare runs, and the executor's checked build does them on any machine.
sanitized="sizes or layouts or leading_axes or broadcast or deep or large or test_step or clipping or nothing_else"
sanitized+=" or one_kernel or rounded or updates_equal or epoch_is_its_steps or predict_and_evaluate"

fail() { echo "$1" >&2; exit 2; }
from_here() { if [[ $1 == /* ]]; then echo "$1"; else echo "$here/$1"; fi; }

known=tests,memcheck,racecheck,initcheck,synccheck,kernels,kernel_times,training
interpreter="" wheel="" only=$known output=""
while [ $# -gt 0 ]; do
    case $1 in
    --python | --wheel | --only)
        [ $# -gt 1 ] || fail "$1 needs a value"
        case $1 in
        --only) only=$2 ;;
        --wheel)
            [ -f "$2" ] || fail "there is no wheel $2"
            wheel=$(from_here "$2") ;;
        --python)
            interpreter=$(command -v "$2") || fail "there is no interpreter $2"
            interpreter=$(from_here "$interpreter") ;;
        esac
        shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    -*) fail "unknown option $1; --help lists them" ;;
    *) output=$(from_here "$1") ;;
    esac
    shift
done

[ -z "$wheel" ] || [ -n "$interpreter" ] || fail "--wheel needs --python: whose interpreter it is for"
for name in ${only//,/ }; do
    [[ ,$known, == *,$name,* ]] || fail "--only has $name; expected some of $known"
done

cd "$(dirname "$0")/.." || exit 2

# --- the GPU ---------------------------------------------------------------------------------------------------------
export CUDA_DEVICE_ORDER=PCI_BUS_ID # nvidia-smi's order
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES%%,*}
query() { nvidia-smi --id="$CUDA_VISIBLE_DEVICES" --query-gpu="$1" --format=csv,noheader,nounits; }

command -v nvidia-smi >/dev/null || fail "no GPU: there is no nvidia-smi, which comes with NVIDIA's driver"
device=$(query name 2>&1) || fail "no GPU: nvidia-smi says: $device"
capability=$(query compute_cap)
driver=$(query driver_version)
[[ $capability == [0-9]*.[0-9] ]] || fail "no GPU: nvidia-smi says: $device"

work=$(mktemp -d)
sampler=""
finish() {
    [ -z "$sampler" ] || kill "$sampler" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
output=${output:-benchmarks/results/gpu-$(tr -cs '[:alnum:]\n' - <<<"$device").json}
reporter=${interpreter:-python3}

PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin

# --- steps -----------------------------------------------------------------------------------------------------------
fact() { printf '%s\t%s\n' "$1" "$2" >>"$work/facts"; }
report() { "$reporter" benchmarks/_gpu_report.py "$work" "$output"; }
failures=0

# step NAME COMMAND...: the command's output goes to a log, whose end is shown where it fails.
step() {
    local name=$1 start=$SECONDS status=0
    shift
    echo "$name ..."
    "$@" >"$work/$name.log" 2>&1 || status=$?
    printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - start)) >>"$work/steps"
    if [ $status = 0 ]; then
        echo "$name: passed in $((SECONDS - start)) s"
    else
        failures=$((failures + 1))
        echo "$name: FAILED with status $status after $((SECONDS - start)) s"
        tail -n 40 "$work/$name.log"
    fi
    report || failures=$((failures + 1))
    return $status
}

asked() { [[ ,$only, == *,$1,* ]]; }
left_out() {
    echo "$1: left out: $2"
    fact left_out "$1: $2"
}

# While a step measures, what the GPU does: idle before and after, its clocks say nothing.
state=clocks.sm,clocks.mem,temperature.gpu,power.draw,utilization.gpu
for reasons in clocks_event_reasons.active clocks_throttle_reasons.active; do
    if query $reasons >/dev/null 2>&1; then
        state=$state,$reasons
        break
    fi
done
measured() {
    while query "$state"; do sleep 5; done >"$work/$1.state" 2>/dev/null &
    sampler=$!
    step "$@"
    kill "$sampler" 2>/dev/null
    sampler=""
}

for key in name uuid driver_version compute_cap memory.total clocks.max.sm clocks.max.mem power.limit persistence_mode; do
    fact "gpu $key" "$(query $key 2>/dev/null || echo unknown)"
done
fact "gpu state" "$state"
fact commit "$(git rev-parse HEAD 2>/dev/null)"
git status --porcelain -- . ':!benchmarks/results' 2>/dev/null |
    while IFS= read -r line; do fact changed "$line"; done
fact nvcc "$(nvcc --version 2>/dev/null | sed -n 's/.*release .*, V//p')"
fact only "$only"
[ -z "$wheel" ] || fact wheel "${wheel##*/}"

# --- build -----------------------------------------------------------------------------------------------------------
options=(--no-build-isolation -C cmake.define.TILEFUSE_CUDA=ON -C "cmake.define.TILEFUSE_CUDA_ARCHITECTURES=${capability/./}")
options+=(-C cmake.define.CMAKE_CUDA_FLAGS=-lineinfo) # for the sanitizers' findings; costs no speed
[ -z "$wheel" ] || options=()
newest=12 # the CUDA that the driver is for
[ "${driver%%.*}" -lt 580 ] || newest=13

environment() {
    local tools=(scikit-build-core pybind11 cmake ninja)
    if ! command -v nvcc >/dev/null && [ $newest = 13 ]; then
        tools+=(nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl)
    fi
    python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q "${tools[@]}"
}
if [ -n "$interpreter" ]; then
    python=$interpreter
    step build "$python" -m pip install -q --no-deps --no-index --ignore-installed --prefix "$work/installed" \
        "${wheel:-.}" "${options[@]}" || exit 1
    package=$(find "$work/installed" -path '*-packages/tilefuse' -print -quit)
    export PYTHONPATH=${package%/tilefuse}${PYTHONPATH:+:$PYTHONPATH}
else
    python=$work/venv/bin/python
    PATH=$work/venv/bin:$PATH
    step environment environment || exit 1
    step build "$python" -m pip install -q ".[dev]" "${options[@]}" || exit 1
    for package in "cupy-cuda${newest}x" torch; do
        "$python" -m pip install -q "$package" || left_out "$package" "pip could not install it"
    done
fi
step info "$python" -m tilefuse info
"$python" -m pip freeze 2>/dev/null | grep -iE '^(numpy|cupy|torch|triton|nvidia-cublas)' |
    while IFS= read -r line; do fact package "$line"; done

# --- tests -----------------------------------------------------------------------------------------------------------
pytest=("$python" -m pytest -q -p no:cacheprovider --device cuda)
asked tests && step tests "${pytest[@]}"
for tool in memcheck racecheck initcheck synccheck; do
    asked $tool || continue
    if command -v compute-sanitizer >/dev/null; then
        step $tool compute-sanitizer --tool $tool --error-exitcode 1 --target-processes all \
            "${pytest[@]}" -k "cuda and ($sanitized)" tests/ops tests/test_program.py
    else
        left_out $tool "there is no compute-sanitizer, which comes with the CUDA toolkit"
    fi
done

# --- benchmarks ------------------------------------------------------------------------------------------------------
export CUPY_TF32=0 # as train_step.py sets PyTorch: tilefuse's float32 products are as exact as float32's
if asked kernels; then
    if "$python" -c "import cupy" 2>/dev/null; then
        measured kernels "${pytest[@]}" benchmarks --benchmark-json "$work/kernels.json"
    else
        left_out kernels "arrays on a GPU need CuPy"
    fi
fi
if asked kernel_times; then
    if "$python" -c "import torch" 2>/dev/null; then
        measured kernel_times "$python" benchmarks/gpu_kernels.py --output "$work"
    else
        left_out kernel_times "PyTorch's profiler takes the times"
    fi
fi
asked training && measured training "$python" benchmarks/train_step.py --device cuda --output "$work"

report && [ $failures = 0 ]
