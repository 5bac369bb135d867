#!/usr/bin/env bash
# Checks the GPU kernels on a GPU, measures them, and collects what was found:
#
#     benchmarks/gpu/check.sh [--rehearse] [--backend cuda|triton] [OUT] [STAGE...]
#
# Needs PyTorch >= 2.11, NumPy, pytest, pybind11 and setuptools for the interpreter that PYTHON names (python3), for the
# CUDA C++ kernels CUDA 13 (nvcc, compute-sanitizer), for Triton's the package triton, and no network; the tools of CUDA
# are looked for in PATH and CUDA_HOME (/usr/local/cuda). Without --backend both are checked, where what they need is
# there. OUT (runs/gpu; a new one is named with a slash) receives a log per stage and what the last stages write. Each
# stage can run alone by its name, and is stopped after ten minutes; one that fails does not stop the others. What goes
# file by file or problem by problem is "unfinished" when its time is over: run it again, and it goes on from there.
#
#     build      compiles pycv for the GPU in sight, and installs it for this interpreter, from here
#     wrappers   golden tests of the wrappers of csrc/cuda/device
#     kernels    the tests of every CUDA kernel: sizes across tiles, layouts, dtypes
#     ops        the op tests, torch's own samples included, on cuda tensors with the CUDA kernels forced
#     fuzz       random problems over every op, algorithm and layout
#     memcheck, racecheck, initcheck      compute-sanitizer on one small problem per kernel; where there is no
#                compute-sanitizer they are "not there", which verified refuses as it does a stage that has not run
#     graphs     capture of every kernel in CUDA graphs, streams, prepared weights, autotune
#     triton_kernels, triton_ops, triton_fuzz, triton_graphs      the same of the Triton kernels; the first is one small
#                problem per kernel
#     bench      against cuDNN, cuBLAS and Inductor: OUT/bench/cold.json, warm.json and table.md, with the goals
#     ncu        why: where bench found the vendor or pycv a tenth faster, both by Nsight Compute: OUT/ncu
#     networks   whole networks against cuDNN and torch.compile: OUT/networks/networks.json and networks.md
#     verified   OUT/verified.json, for pycv/choice: the kernels that came out right, of each backend whose tests above
#                have all passed
#     tune       kernel and tile for every problem of bench, by autotune among what is verified: OUT/tune, with the
#                choice cache
#
# --rehearse runs a slice of every stage without a GPU: on a stand-in for one (tests/standin), by host execution. The
# stand-in has no room beside torch's own CUDA library: with a CUDA build of torch the kernels get tensors of the CPU,
# and the stages about a device are left out. So they are with --backend triton, whose interpreter then runs them.
set -uo pipefail
cd "$(dirname "$0")/../.."
rehearsal='' backends=()
while [[ ${1:-} == --* ]]; do
    case $1 in
    --rehearse) rehearsal=1 ;;
    --backend)
        shift
        [[ ${1:-} == cuda || ${1:-} == triton ]] || { echo "--backend ${1:-}: expected cuda or triton" >&2; exit 2; }
        backends=("$1")
        ;;
    *) echo "there is no option $1: --rehearse, --backend cuda|triton" >&2; exit 2 ;;
    esac
    shift
done
of_cuda=(wrappers kernels ops fuzz memcheck racecheck initcheck graphs)
of_triton=(triton_kernels triton_ops triton_fuzz triton_graphs)
of_both=(bench ncu networks verified tune)
all=(build "${of_cuda[@]}" "${of_triton[@]}" "${of_both[@]}")
about_a_device=(graphs triton_graphs bench ncu networks tune)
is_stage() { [[ " ${all[*]} " == *" $1 "* ]]; }
out=runs/gpu
if [[ $# -gt 0 ]] && ! is_stage "$1"; then
    [[ $1 == */* || -d $1 ]] ||
        { echo "there is no stage $1, nor a folder (a new one is named with a slash): ${all[*]}" >&2; exit 2; }
    out=$1
    shift
fi
for name in "$@"; do
    is_stage "$name" || { echo "there is no stage $name: ${all[*]}" >&2; exit 2; }
done
python=${PYTHON:-python3}
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin

has() { "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$1"; }

"$python" -c '' || { echo "$python does not run: PYTHON names the interpreter" >&2; exit 2; }
missing=()
for name in torch numpy pytest pybind11 setuptools; do has "$name" || missing+=("$name"); done
[[ ${#missing[@]} == 0 ]] || { echo "$python lacks ${missing[*]}: PYTHON names another interpreter" >&2; exit 2; }
if [[ ${#backends[@]} == 0 ]]; then
    [[ $rehearsal ]] || command -v nvcc >/dev/null && backends=(cuda)
    [[ ! $rehearsal ]] && has triton && backends+=(triton)
    [[ ${#backends[@]} == 0 ]] && backends=(cuda)
fi
echo "backends: ${backends[*]}"
checks() { [[ " ${backends[*]} " == *" $1 "* ]]; }
mkdir -p "$out/stages"
out=$(cd "$out" && pwd)
not_there=69 unfinished=75 # the status of a stage whose tool is missing, and of one that has more to do
export PYCV_TEST_DEVICE=cuda
without=()
checks cuda || without+=("${of_cuda[@]}")
checks triton || without+=("${of_triton[@]}")
if [[ $rehearsal ]] && ! checks cuda; then
    export PYCV_TEST_DEVICE=cpu TRITON_INTERPRET=1 OMP_NUM_THREADS=1
    without+=("${about_a_device[@]}")
elif [[ $rehearsal ]] && "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    export PYCV_TEST_DEVICE=cpu PYCV_CUDA_HOST=1
    echo "a CUDA build of torch: rehearsed on tensors of the CPU, without the stages ${about_a_device[*]}"
    without+=("${about_a_device[@]}")
elif [[ $rehearsal ]]; then
    export PYCV_TEST_DEVICE=standin
fi
[[ $rehearsal ]] && export PYCV_CACHE_DIR=$out/cache # what a stand-in tunes is of no use to anybody
chosen=()
for name in "${@:-${all[@]}}"; do [[ " ${without[*]} " == *" $name "* ]] || chosen+=("$name"); done
export CUBLAS_WORKSPACE_CONFIG=:4096:8 # tests ask torch for deterministic algorithms

test_with() { "$python" -m pytest -q -p no:cacheprovider "$@"; }
small() { "$python" -m tests.cuda.small "$@"; }

# Test files, each for up to four minutes: one that hangs costs the others nothing. Those that have passed are passed
# over when the stage, unfinished, runs again.
test_each() {
    local file passed status left result=0
    mkdir -p "$out/stages/$stage"
    for file in "$@"; do
        passed=$out/stages/$stage/${file##*/}.passed
        [[ -e $passed ]] && { echo "== $file has passed"; continue; }
        left=$((580 - SECONDS))
        ((left < 30)) && { echo "== no time for $file"; [[ $result == 1 ]] || result=$unfinished; continue; }
        echo "== $file"
        timeout -k 5 $((left < 240 ? left : 240)) "$python" -m pytest -q -p no:cacheprovider "$file"
        status=$?
        if [[ $status == 0 || $status == 5 ]]; then # 5: there are no tests for this device in it
            : >"$passed"
        elif [[ $left -lt 240 && ($status == 124 || $status == 137) ]]; then
            echo "== no time for all of $file"
            [[ $result == 1 ]] || result=$unfinished
        else
            echo "== $file: failed, or stopped after four minutes ($status)"
            result=1
        fi
    done
    return $result
}

build() {
    export FORCE_CUDA=0
    [[ $backends == *cuda* ]] && FORCE_CUDA=1
    if [[ ! $rehearsal ]]; then
        nvidia-smi
    elif [[ $FORCE_CUDA == 1 ]]; then
        FORCE_CUDA=0
        "$python" -m tools.simt
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
        local file files=()
        for file in tests/cuda/test_*.py; do
            [[ $file == */test_cases.py || $file == */test_compiled.py ]] || files+=("$file")
        done
        test_each "${files[@]}"
    fi
}
ops() {
    if [[ $rehearsal ]]; then
        test_with tests/ops/test_relu.py tests/ops/test_conv_op_db.py tests/ops/test_gemm.py \
            -k "samples and (relu or conv1d or mm or linear)"
    else
        test_each tests/ops/test_*.py
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

# Triton compiles a kernel again for whatever changes its code: of the fuzzer's problems fewer.
triton_kernels() { PYCV_TEST_BACKEND=triton small ${rehearsal:+--only relu}; }
triton_ops() {
    export PYCV_TEST_BACKEND=triton
    if [[ $rehearsal ]]; then test_with tests/ops/test_relu.py -k samples; else test_each tests/ops/test_*.py; fi
}
triton_fuzz() {
    local count=300
    [[ $rehearsal ]] && count=3
    PYCV_TEST_BACKEND=triton "$python" -m tests.fuzz --n $count
}
triton_graphs() { PYCV_TEST_BACKEND=triton test_with tests/cuda/test_device.py; }

bench() {
    if [[ $rehearsal ]]; then
        "$python" -m tests.standin benchmarks.gpu --output "$out/bench" --problems tests/standin/problems.txt \
            --sampling 0.2 --baseline torch:nchw,torch:nhwc
    else
        "$python" -m benchmarks.gpu --output "$out/bench"
    fi
}

ncu() {
    if [[ $rehearsal ]]; then
        "$python" -m tests.standin benchmarks.gpu.explain --bench "$out/bench" --output "$out/ncu" --most 1 \
            --ncu tests/standin/ncu
    elif ! type -P ncu; then
        echo "there is no ncu (Nsight Compute) in PATH ($PATH)"
        return $not_there
    else
        "$python" -m benchmarks.gpu.explain --bench "$out/bench" --output "$out/ncu"
    fi
}

networks() {
    rm -rf "$out/networks"
    if [[ $rehearsal ]]; then
        "$python" -m tests.standin benchmarks.gpu.networks --output "$out/networks" --network lenet5 --batch 1 \
            --precision fp32 --contender pycv,cuda,torch:nchw --sampling 0.2
    else
        local own
        printf -v own '%s,' pycv $backends
        "$python" -m benchmarks.gpu.networks --output "$out/networks" \
            --contender "${own}torch:nchw,torch:nhwc,torch:compiled"
    fi
}

# Only what every kind of test has seen counts.
verified() {
    local name backend tests result=0
    rm -f "$out/verified.json"
    for backend in $backends; do
        tests="build $of_cuda"
        [[ $backend == triton ]] && tests="build $of_triton"
        for name in $tests; do
            [[ $without == *" $name "* || $(cat "$out/stages/$name.status" 2>/dev/null) == 0 ]] && continue
            echo "$backend: stage $name has not passed"
            result=1
            continue 2
        done
        PYCV_TEST_BACKEND=$backend small ${rehearsal:+--only relu} --verified "$out/verified.json" || result=1
    done
    return $result
}

tune() {
    if [[ $rehearsal ]]; then
        "$python" -m tests.standin benchmarks.gpu.tune --output "$out/tune" --verified "$out/verified.json" \
            --problems tests/standin/problems.txt --only gemm_
    else
        "$python" -m benchmarks.gpu.tune --output "$out/tune" --verified "$out/verified.json"
    fi
}

# What a stage has done stays if it was unfinished or stopped, and no source has changed since.
goes_on() {
    local status=$out/stages/$1.status
    [[ " $unfinished 124 137 " == *" $(cat "$status" 2>/dev/null) "* ]] &&
        [[ -z $(find csrc kernels pycv tests benchmarks -newer "$status" -regex '.*\.\(py\|cu\|h\)') ]]
}

export -f test_with test_each small sanitized "${all[@]}"
export python rehearsal out not_there unfinished
failed=0 summary=()
for name in "${chosen[@]}"; do
    printf '\n######## %s\n' "$name"
    start=$SECONDS
    if ! goes_on "$name"; then
        rm -rf "$out/stages/$name"
        [[ " bench ncu tune " == *" $name "* ]] && rm -rf "${out:?}/$name"
    fi
    lists="stage=$name backends='${backends[*]}' without=' ${without[*]} '"
    lists+=" of_cuda='${of_cuda[*]}' of_triton='${of_triton[*]}'"
    timeout -k 10 600 bash -c "$lists; set -uo pipefail; $name" </dev/null 2>&1 | tee "$out/stages/$name.log"
    status=${PIPESTATUS[0]}
    echo "$status" >"$out/stages/$name.status"
    case $status in
    0) word=passed ;;
    124 | 137) word="stopped after ten minutes" ;;
    "$not_there") word="not there" ;;
    "$unfinished") word="unfinished: run it again, and it goes on" ;;
    *) word="FAILED ($status)" ;;
    esac
    [[ $status != 0 ]] && failed=1
    summary+=("$(printf '%-14s %5d s  %s' "$name" $((SECONDS - start)) "$word")")
done
printf '\n######## summary (%s)\n' "$out"
printf '%s\n' "${summary[@]}" | tee "$out/summary.txt"
exit $failed
