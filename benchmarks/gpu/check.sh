#!/usr/bin/env bash
# Checks the CUDA kernels on a GPU, measures them, and collects what was found:
#
#     benchmarks/gpu/check.sh [--rehearse] [OUT] [STAGE...]
#
# Needs CUDA 13 (nvcc, compute-sanitizer), PyTorch >= 2.11, NumPy, pytest and pybind11 for the interpreter that PYTHON
# names (python3), and no network; the tools of CUDA are looked for in PATH and CUDA_HOME (/usr/local/cuda). OUT
# (runs/gpu) receives a log per stage and what the last stages write. Each stage can run alone by its name, and is
# stopped after ten minutes; one that fails does not stop the others:
#
#     build      compiles pycv for the GPU in sight, and installs it for this interpreter, from here
#     wrappers   golden tests of the wrappers of csrc/cuda/device
#     kernels    the tests of every kernel: sizes across tiles, layouts, dtypes
#     ops        the op tests, torch's own samples included, on cuda tensors with the CUDA kernels forced
#     fuzz       random problems over every op, algorithm and layout
#     memcheck, racecheck, initcheck      compute-sanitizer on one small problem per kernel; where there is no
#                compute-sanitizer they are "not there", which verified refuses as it does a stage that has not run
#     graphs     capture in CUDA graphs, streams, prepared weights, autotune
#     bench      against cuDNN and cuBLAS: OUT/bench/cold.json, warm.json and table.md
#     networks   whole networks against cuDNN and torch.compile: OUT/networks/networks.json and networks.md
#     verified   OUT/verified.json, for pycv/choice: the kernels that came out right, if all of the tests above did
#
# --rehearse runs a slice of every stage without a GPU: on a stand-in for one (tests/standin), by host execution. The
# stand-in has no room beside torch's own CUDA library: with a CUDA build of torch the kernels get tensors of the CPU,
# and the stages about a device are left out.
set -uo pipefail
cd "$(dirname "$0")/../.."
rehearsal=
[[ ${1:-} == --rehearse ]] && { rehearsal=1; shift; }
all=(build wrappers kernels ops fuzz memcheck racecheck initcheck graphs bench networks verified)
tests=(build wrappers kernels ops fuzz memcheck racecheck initcheck graphs)
about_a_device=(graphs bench networks verified)
out=runs/gpu
[[ $# -gt 0 && ! " ${all[*]} " == *" $1 "* ]] && { out=$1; shift; }
chosen=("${@:-${all[@]}}")
for name in "${chosen[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || { echo "there is no stage $name: ${all[*]}" >&2; exit 2; }
done
mkdir -p "$out/stages"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
not_there=69 # the status of a stage whose tool is missing
export PYCV_TEST_DEVICE=cuda
if [[ $rehearsal ]] && "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    export PYCV_TEST_DEVICE=cpu PYCV_CUDA_HOST=1
    echo "a CUDA build of torch: rehearsed on tensors of the CPU, without the stages ${about_a_device[*]}"
    remaining=()
    for name in "${chosen[@]}"; do [[ " ${about_a_device[*]} " == *" $name "* ]] || remaining+=("$name"); done
    chosen=("${remaining[@]}")
elif [[ $rehearsal ]]; then
    export PYCV_TEST_DEVICE=standin
fi
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # tests ask torch for deterministic algorithms

test_with() { "$python" -m pytest -q -p no:cacheprovider "$@"; }
small() { "$python" -m tests.cuda.small "$@"; }

build() {
    if [[ $rehearsal ]]; then
        "$python" -m tools.simt
    else
        export FORCE_CUDA=1
        nvidia-smi
    fi
    "$python" setup.py -q build_ext --inplace &&
        PIP_BREAK_SYSTEM_PACKAGES=1 "$python" -m pip install -q --no-index --no-build-isolation --no-deps -e . &&
        "$python" -m pycv.cli info
}

wrappers() { test_with tests/cuda/test_cases.py; }

# A rehearsal takes of the long stages what runs in seconds on a CPU.
kernels() {
    if [[ $rehearsal ]]; then
        test_with tests/cuda/test_relu.py tests/cuda/test_conv.py -k "through or empty"
    else
        test_with tests/cuda --ignore=tests/cuda/test_cases.py --ignore=tests/cuda/test_compiled.py
    fi
}
ops() {
    if [[ $rehearsal ]]; then
        test_with tests/ops/test_relu.py tests/ops/test_conv_op_db.py tests/ops/test_gemm.py \
            -k "samples and (relu or conv1d or mm or linear)"
    else
        test_with tests/ops
    fi
}
fuzz() {
    local count=2000
    [[ $rehearsal ]] && count=20
    "$python" -m tests.fuzz --n $count
}

# Every tensor is an allocation of its own: what lies beyond it is nobody's.
sanitized() {
    local tool=$1
    shift
    if [[ $rehearsal ]]; then
        small --only relu
    elif ! command -v compute-sanitizer; then
        echo "there is no compute-sanitizer in PATH ($PATH)"
        return $not_there
    else
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 9 "$@" \
            "$python" -m tests.cuda.small
    fi
}
memcheck() { sanitized memcheck; }
racecheck() { sanitized racecheck; }
initcheck() { sanitized initcheck; }

graphs() { test_with tests/cuda/test_device.py tests/cuda/test_autotune.py; }

bench() {
    rm -rf "$out/bench"
    if [[ $rehearsal ]]; then
        "$python" -m tests.standin benchmarks.gpu --output "$out/bench" --problems tests/standin/problems.txt \
            --sampling 0.2 --baseline torch:nchw,torch:nhwc
    else
        "$python" -m benchmarks.gpu --output "$out/bench"
    fi
}

networks() {
    rm -rf "$out/networks"
    if [[ $rehearsal ]]; then
        "$python" -m tests.standin benchmarks.gpu.networks --output "$out/networks" --network lenet5 --batch 1 \
            --precision fp32 --contender pycv,cuda,torch:nchw --sampling 0.2
    else
        "$python" -m benchmarks.gpu.networks --output "$out/networks"
    fi
}

# Only what every kind of test has seen counts.
verified() {
    local name
    for name in "${tests[@]}"; do
        [[ $(cat "$out/stages/$name.status" 2>/dev/null) == 0 ]] || { echo "stage $name has not passed"; return 1; }
    done
    small ${rehearsal:+--only relu} --verified "$out/verified.json"
}

export -f test_with small build wrappers kernels ops fuzz sanitized memcheck racecheck initcheck graphs bench networks verified
export python rehearsal out not_there
failed=0 summary=()
for name in "${chosen[@]}"; do
    printf '\n######## %s\n' "$name"
    start=$SECONDS
    timeout -k 10 600 bash -c "tests=(${tests[*]}); set -uo pipefail; $name" </dev/null 2>&1 | tee "$out/stages/$name.log"
    status=${PIPESTATUS[0]}
    echo "$status" >"$out/stages/$name.status"
    word=passed
    [[ $status == 124 || $status == 137 ]] && word="stopped after ten minutes"
    [[ $status == "$not_there" ]] && word="not there"
    [[ $status != 0 && $word == passed ]] && word="FAILED ($status)"
    [[ $status != 0 ]] && failed=1
    summary+=("$(printf '%-10s %5d s  %s' "$name" $((SECONDS - start)) "$word")")
done
printf '\n######## summary (%s)\n' "$out"
printf '%s\n' "${summary[@]}" | tee "$out/summary.txt"
exit $failed
