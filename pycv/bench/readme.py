"""Rewrites the tables of README.md: ``python -m pycv.bench.readme [FILE]``.

The ratios come from recorded results, the states of the GPU kernels from the registry and from
``choice/verified.json``. Only what stands between their markers changes, and it is never written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from .. import registry
from ..choice import verified
from ..kernels import Kernel
from . import network_report, recording
from .report import markdown, markdown_table, read

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NETWORKS_BEGIN, NETWORKS_END = "<!-- networks:begin -->", "<!-- networks:end -->"
KERNELS_BEGIN, KERNELS_END = "<!-- gpu-kernels:begin -->", "<!-- gpu-kernels:end -->"
COMPILED_FOR = "7.5;8.0+PTX;9.0a"  # by CI, as by setup.py where no GPU is in sight
TENSOR_CORES = {"mma_sync": "8.0", "wgmma": "9.0a"}  # from which architecture on they are there
TRITON_COMPILED_FOR = "8.0;9.0"  # by CI; on a device for that one, when first used
RECORDING = Path("benchmarks/results/cpu-resnet-vgg.json")  # of `make bench`, with --json
NETWORKS = Path("benchmarks/results/cpu-networks.json")  # of `pycv bench model`


def rewrite(result: str | Path = RECORDING, readme: str | Path = "README.md", networks: str | Path = NETWORKS) -> str:
    """Puts the table of a recording between the markers, that of ``networks`` where there are markers for it, and
    returns what was done.

    Raises ValueError if that is no recording or README.md lacks the markers, OSError if it cannot be read.
    """
    recorded = read(result)
    text = Path(readme).read_text(encoding="utf-8")
    text = _replaced(text, BEGIN, markdown(recorded), END, readme)
    if NETWORKS_BEGIN in text:
        text = _replaced(text, NETWORKS_BEGIN, network_report.ratios(recording.read(networks)), NETWORKS_END, readme)
    if KERNELS_BEGIN in text:
        text = _replaced(text, KERNELS_BEGIN, kernel_table(), KERNELS_END, readme)
    Path(readme).write_text(text, encoding="utf-8")
    return f"{readme}: ratio table rewritten from {result}"


def _replaced(text: str, begin: str, new: str, end: str, readme: str | Path) -> str:
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{readme}: the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{new}{end}{after}"


def kernel_table() -> str:
    """How far each GPU kernel has come, in Markdown: a line for those of an algorithm that have come equally far."""
    lines: dict[tuple[str, str, str], list[Kernel]] = {}
    for kernel in registry.kernels():
        if kernel.on_gpu:
            name = kernel.name.removeprefix("cuda:")
            key = (re.sub(r"[123]d$", "", kernel.op), name, _verified(kernel))
            lines.setdefault(key, []).append(kernel)
    table = [("GPU kernel", "passes", "executed by the CPU", "compiled for", "verified on a device")]
    for (op, name, state), kernels in lines.items():
        passes = ", ".join(dict.fromkeys(kernel.pass_ for kernel in kernels))
        executed = "every commit" if kernels[0].backend == "cuda" else "a slice every commit, all in make test-full"
        table.append((f"{op}: {name}", passes, executed, _compiled_for(kernels[0]), state))
    return markdown_table(table) + "\n"


def _compiled_for(kernel: Kernel) -> str:
    """The architectures for which CI compiles more of it than a trap: of CUDA C++ one of them at a time."""
    if kernel.backend == "triton":
        return TRITON_COMPILED_FOR
    needed = next((at for name, at in TENSOR_CORES.items() if kernel.algorithm.startswith(name)), "")
    architectures = COMPILED_FOR[COMPILED_FOR.index(needed) :]
    return f"one of {architectures} every commit, all in make test-full" if ";" in architectures else architectures


def _verified(kernel: Kernel) -> str:
    return ", ".join(f"{v.device} ({v.date}, {v.commit})" for v in verified.of(kernel)) or "not yet"


if __name__ == "__main__":
    try:
        print(rewrite(*sys.argv[1:2]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
