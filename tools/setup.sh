#!/usr/bin/env bash
# Makes a virtual environment ready for one of the project's extras: tools/setup.sh demo|test|lint
#
# Checks the machine, makes the virtual environment, compiles with a line of progress per object and installs the
# package in editable mode under constraints.txt. Each step that is already done costs nothing.
# PYTHON names the interpreter, PIP_ARGS goes to every pip install, VENV (.venv) and CONSTRAINTS (constraints.txt) are
# where and under which versions.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=$1
python=${PYTHON:-python3}
venv=${VENV:-.venv}
constraints=${CONSTRAINTS:-constraints.txt}
read -ra pip_args <<<"${PIP_ARGS:-}"

say() { printf '== %s\n' "$*" >&2; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    found=$("$python" --version 2>&1 || true)
    cat >&2 <<END
pycv needs Python >= 3.10; $python is: ${found:-not found}
Install:
  Debian/Ubuntu: apt-get install python3 python3-venv python3-dev g++
  Fedora:        dnf install python3 python3-devel gcc-c++
or name another interpreter: make demo PYTHON=/path/to/python3.12
END
    exit 1
fi

if [[ ! -x $venv/bin/pip ]]; then
    "$python" tools/native.py --venv
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
python=$venv/bin/python
# Byte code comes with the first import, of what is imported.
install=("$python" -m pip install --no-compile --disable-pip-version-check -c "$constraints" "${pip_args[@]}")

# A stamp is newer than all that decides what it stands for.
fresh() {
    local stamp=$1 path
    shift
    [[ -e $stamp ]] || return 1
    for path in "$@"; do [[ $path -nt $stamp ]] && return 1; done
    return 0
}

stamp=$venv/installed-$extra
if ! fresh "$stamp" pyproject.toml "$constraints" tools/setup.sh; then
    case $extra in  # what the wheels of the extra weigh; Triton alone is 200 MB
    test) rest="500 MB" ;;
    demo) rest="150 MB" ;;
    *) rest="50 MB" ;;
    esac
    say "installing under $constraints: torch for the CPU is about 200 MB, the rest ($extra) about $rest"
    if [[ ${#pip_args[@]} -eq 0 ]] && ! "$python" -c 'import torch' 2>/dev/null; then
        say "the default index may serve a CUDA build of several GB; for a smaller download point PIP_ARGS at a" \
            "CPU-only index, e.g. make demo PIP_ARGS=\"--extra-index-url URL\""
    fi
    "${install[@]}" -q setuptools wheel pybind11
fi

"$python" -W ignore setup.py -q build_ext --inplace

if ! fresh "$stamp" pyproject.toml "$constraints" tools/setup.sh; then
    say "installing pycv[$extra]"
    "${install[@]}" --no-build-isolation -e ".[$extra]"
    touch "$stamp"
fi
