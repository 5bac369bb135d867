"""The cost model: what a kernel would take for a problem, as a sum of constants times counts.

    seconds = a multiply_adds + b vector_elements + c bytes + d regions + e

The counts are those of the kernel's own plan (``plan.cost``, csrc/cpu/plan.h), the constants those of a table, one set
per kernel and layout, and others for few channels and for grouped convolutions. Kernels whose plan counts nothing
(pooling, norms, pointwise) and torch are predicted from the problem instead, with one set of constants per kind of
problem (:func:`_kind`). The shapes of layers appear nowhere.

A table is what ``pycv tune machine`` measured on one device class. That of this very machine lies in the cache
directory; those in ``tables/`` come with pycv and stand for the machines of an instruction set. Where there is neither,
constants are guessed from nominal rates: enough to order pycv's kernels, not to prefer them to torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..kernels import Kernel
from ..kernels.large_results import LEAST_BYTES, result_bytes
from ..problem import ITEMSIZES, ConvProblem, GemmProblem, PoolProblem, Problem
from . import device, files

SCHEMA = 1
TABLES = Path(__file__).parent / "tables"
UNMEASURED = 1.5  # a kernel that the table lacks is taken to be this much slower than the nominal rates say
_CACHED = 2.0**24  # bytes of a call that stay in caches from one to the next
Counts = dict[str, float]


@dataclass(frozen=True)
class Rates:
    """What one thread does per second (multiply_adds in f32) and all together (bytes), from which constants are guessed
    where nothing was measured."""

    multiply_adds: float = 20e9
    bytes: float = 10e9

    def guess(self) -> Counts:
        """A constant for every count that a model may use."""
        per_byte = 1 / self.bytes
        return {
            "multiply_adds": 1.4 / self.multiply_adds,
            "vector_elements": 8 / self.multiply_adds,
            "outputs": 8 / self.multiply_adds,
            "bytes": 0.5 * per_byte,
            "weight_bytes": per_byte,
            "output_bytes": 0.5 * per_byte,
            "far_bytes": 2 * per_byte,
            "fresh_bytes": 25 * per_byte,
            "steps": 2e-6,
            "regions": 2e-6,
            "calls": 2e-6,
        }


@dataclass(frozen=True)
class Table:
    """Measured constants: ``threads`` maps a thread count to the constants of each group of :func:`group_of`."""

    name: str
    rates: Rates
    threads: Mapping[int, Mapping[str, Counts]]

    @property
    def measured(self) -> bool:
        return bool(self.threads)

    def constants(self, kernel: Kernel, problem: Problem, plan: Any, threads: int, step: str = "") -> Counts | None:
        """Those of the kernel for such problems, else for all of the layout, else of another; None: not measured."""
        if not self.threads:
            return None
        nearest = min(self.threads, key=lambda count: abs(math.log(count / threads)))
        group = group_of(kernel, problem, plan, step)
        measured = self.threads[nearest]
        exact = measured.get(group, measured.get(group.removesuffix(_FEW).removesuffix(_GROUPED)))
        if exact is not None or kernel.backend == "torch":
            return exact
        return self._stand_ins.get((nearest, group.rpartition(" ")[0]))

    @cached_property
    def _stand_ins(self) -> dict[tuple[int, str], Counts]:
        """The constants of the first layout or kind, by thread count and the rest of the group's name."""
        found: dict[tuple[int, str], Counts] = {}
        for count, groups in self.threads.items():
            for name in sorted(groups):
                found.setdefault((count, name.rpartition(" ")[0]), groups[name])
        return found


# --------------------------------------------------------------------------------------------------- prediction


def predicted(table: Table, kernel: Kernel, problem: Problem, plan: Any, threads: int, kept: bool) -> float | None:
    """Seconds of a call; None for torch where nothing was measured.

    ``plan`` is the kernel's for this problem (None for torch). ``kept``: the prepared weight is at hand, in memory: the
    constants were measured with one that stays in the caches, where the other layers of a network leave it no room.
    Otherwise preparing it is part of the call.
    """
    step = "kept" if kept and isinstance(problem, GemmProblem) else ""  # its cost counts a matrix that is not prepared
    constants = table.constants(kernel, problem, plan, threads, step)
    if constants is None and kernel.backend == "torch":
        return None
    seconds = _sum(constants, counts_of(problem, plan, threads), table.rates)
    if kept and isinstance(problem, ConvProblem):
        seconds += _kept_weight_bytes(problem, plan) * table.rates.guess()["far_bytes"]
    preparing = None if kept else prepare_counts(problem, plan)
    if preparing is not None:
        seconds += _sum(table.constants(kernel, problem, plan, threads, "prepare"), preparing, table.rates)
    return seconds


def _kept_weight_bytes(p: ConvProblem, plan: Any) -> float:
    prepared = getattr(plan, "prepared_weight_bytes", 0)
    return prepared or p.k * (p.c // p.groups) * math.prod(p.filter) * ITEMSIZES.get(p.dtype, 4)


def _sum(constants: Counts | None, counts: Counts, rates: Rates) -> float:
    """What never occurred while measuring has no constant: it is guessed."""
    factor = UNMEASURED if constants is None else 1.0
    constants = rates.guess() | (constants or {})
    return factor * sum(constants[name] * count for name, count in counts.items())


def counts_of(problem: Problem, plan: Any, threads: int) -> Counts:
    """What the constants are multiplied with."""
    cost = _cost(plan)
    if cost is not None:
        return _cost_counts(cost, problem, _touched(problem, plan))
    if plan is None:
        return _torch_counts(problem, threads)
    return _problem_counts(problem, threads)


def prepare_counts(problem: Problem, plan: Any) -> Counts | None:
    """Of preparing the weight; None where that is no step of its own."""
    size = getattr(plan, "prepared_weight_bytes", 0)
    if not size or not hasattr(plan, "prepare_cost"):
        return None
    cost = _cost(plan, "prepare_cost")
    return {"bytes": float(size), "calls": 1.0} if cost is None else _cost_counts(cost, problem, cost.bytes)


def _cost(plan: Any, name: str = "cost") -> Any | None:
    """What the plan counts; None where it counts nothing."""
    cost = getattr(plan, name, None)
    return cost if cost is not None and (cost.multiply_adds or cost.vector_elements) else None


def _touched(problem: Problem, plan: Any) -> float:
    """Bytes of all the memory of a call, however often it is read: blocks of a weight pass by once per block."""
    return problem.bytes + getattr(plan, "prepared_weight_bytes", 0) + getattr(plan, "workspace_bytes", 0)


def _cost_counts(cost: Any, problem: Problem, touched: float) -> Counts:
    width = _width(problem)
    return {
        "multiply_adds": width * cost.multiply_adds,
        "vector_elements": width * cost.vector_elements,
        "bytes": cost.bytes,
        "far_bytes": _far(touched),
        "regions": cost.regions,
        "calls": 1.0,
    }


def _far(bytes: float) -> float:
    """Those of the memory that a call touches which do not fit into caches."""
    return max(0.0, bytes - _CACHED)


def _problem_counts(problem: Problem, threads: int) -> Counts:
    counts = {
        "multiply_adds": _width(problem) * problem.flops / threads,
        "bytes": problem.bytes,
        "far_bytes": _far(problem.bytes),
        "calls": 1.0,
    }
    if isinstance(problem, PoolProblem):  # a window costs something however small it is
        counts["outputs"] = problem.n * problem.c * math.prod(problem.output_size) / threads
    return counts


def _torch_counts(p: Problem, threads: int) -> Counts:
    """torch's convolutions work on whole vectors of channels; it reorders the weight on every call, and an epilogue
    is an op of its own. Its large results are in small pages."""
    if isinstance(p, PoolProblem) and p.indices:
        p = replace(p, indices="int64")  # the only ones that it has
    counts = _problem_counts(p, threads)
    size = result_bytes(p)
    counts["fresh_bytes"] = size if size >= LEAST_BYTES else 0
    if not isinstance(p, (ConvProblem, GemmProblem)):
        return counts
    steps = sum(step != "bias" for step in p.epilogue)
    itemsize = ITEMSIZES[p.dtype]
    if isinstance(p, GemmProblem):
        computed = p.batch * p.m * p.n * itemsize
        weight = p.k * p.n * itemsize
        multiplies = p.flops / 2
    else:
        channels = p.k if p.pass_ == "forward" else p.c
        computed = p.n * channels * math.prod(p.computed_size) * itemsize
        weight = p.k * (p.c // p.groups) * math.prod(p.filter) * itemsize
        padded = _whole_vectors(p.k // p.groups) * _whole_vectors(p.c // p.groups) * p.groups
        if p.c == p.groups:  # one channel per group: vectors run over the groups
            padded = _whole_vectors(p.c) * max(1, p.k // p.groups)
        multiplies = p.n * math.prod(p.output_size) * math.prod(p.filter) * padded
    return counts | {
        "multiply_adds": _width(p) * multiplies / threads,
        "bytes": p.bytes - weight,
        "weight_bytes": weight,
        "output_bytes": steps * computed,
        "steps": steps,
    }


def _whole_vectors(channels: int) -> int:
    return -(-channels // 16) * 16 if channels > 4 else channels


def _width(problem: Problem) -> float:
    return ITEMSIZES.get(problem.dtype, 4) / 4


# ------------------------------------------------------------------------------------------------------- groups


def group_of(kernel: Kernel, problem: Problem, plan: Any, step: str = "") -> str:
    """The name under which a table keeps the constants that hold here. Its last word may be another one's stand-in."""
    computes = f"{_family(problem)}.{problem.pass_} {kernel.name}"
    step = f" {step}" if step else ""
    return f"{computes}{step} {_kind(problem) if _cost(plan) is None else _layout(problem)}"


def _family(problem: Problem) -> str:
    return "conv" if isinstance(problem, ConvProblem) else problem.op


def _layout(problem: Problem) -> str:
    if isinstance(problem, ConvProblem):
        name = (problem.output if problem.pass_ == "grad_input" else problem.input).name
        return name + (_GROUPED if problem.groups > 1 else _FEW if _few_channels(problem) else "")
    return problem.a.kind + problem.b.kind if isinstance(problem, GemmProblem) else "any"


def _kind(p: Problem) -> str:
    """What a kernel that counts nothing itself distinguishes, coarsely."""
    if isinstance(p, ConvProblem):
        groups = "dense" if p.groups == 1 else "single" if p.groups == p.c else "grouped"
        filter = "1x1" if set(p.filter) == {1} else "wide"
        stride = "s1" if set(p.stride) == {1} else "strided"
        channels = "few" if _few_channels(p) else "many"
        return "/".join([f"{len(p.size)}d", groups, filter, stride, channels, p.dtype, _torch_layout(p)])
    if isinstance(p, GemmProblem):
        thin = "thin" if min(p.m, p.n) < 8 else "wide"
        return "/".join([thin, "batched" if p.batch > 1 else "single", p.dtype])
    words = ["indices"] if isinstance(p, PoolProblem) and p.indices else []
    words += ["training"] if getattr(p, "training", False) else []
    layout = getattr(p, "input", None)
    return "/".join([p.op, *words, p.dtype, *([layout.name] if layout is not None else [])])


_FEW, _GROUPED = "/few", "/grouped"


def _few_channels(p: ConvProblem) -> bool:
    """The first convolution of a network, and its like: copies and stores outweigh sums that short."""
    return p.groups == 1 and min(p.c, p.k) < 16 and set(p.filter) != {1}


def _torch_layout(p: ConvProblem) -> str:
    """torch runs in channels_last if either operand is."""
    read = {"forward": (p.input, p.weight), "grad_input": (p.output, p.weight), "grad_weight": (p.output, p.input)}
    return "nhwc" if "nhwc" in [layout.name for layout in read[p.pass_]] else "nchw"


# ------------------------------------------------------------------------------------------------------- tables

_GUESSED = Table("none: constants are guessed", Rates(), {})


def current() -> Table:
    """The table for this machine: its own if it was tuned, else the one of its instruction set, else guesses."""
    try:
        here = device.current()
    except RuntimeError:  # nothing to choose between
        return _GUESSED
    return _tuned(machine_file(here), here) or _shipped(here.isa) or _GUESSED


def machine_file(here: device.Device) -> Path:
    """Where ``pycv tune machine`` keeps the table of a device class."""
    return files.cache_dir() / f"machine-{here.digest}.json"


def forget() -> None:
    """Read the tables again: they changed."""
    _tuned.cache_clear()
    _shipped.cache_clear()


@cache
def _tuned(path: Path, here: device.Device) -> Table | None:
    value = files.read(path, check)
    return None if value is None else as_table(value, f"measured on this machine ({here})")


@cache
def _shipped(isa: str) -> Table | None:
    path = TABLES / f"{isa}.json"
    if not path.exists():
        return None
    value = json.loads(path.read_text())
    return as_table(value, f"shipped for {isa}, measured on {value['device']['cpu']}")


def as_table(value: Mapping[str, Any], name: str) -> Table:
    """A table out of its recorded form."""
    threads = {
        int(count): {group: entry["constants"] for group, entry in groups.items()}
        for count, groups in value["threads"].items()
    }
    return Table(name, Rates(**value["rates"]), threads)


def check(value: Any) -> None:
    """Raises ValueError, KeyError or TypeError for what is no recorded table."""
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise ValueError(f"expected a table of schema {SCHEMA}")
    device.Device(**value["device"])
    table = as_table(value, "")
    numbers = [table.rates.multiply_adds, table.rates.bytes]
    constants = [c for groups in table.threads.values() for group in groups.values() for c in group.values()]
    if not all(isinstance(n, (int, float)) and math.isfinite(n) and n > 0 for n in numbers):
        raise ValueError("rates must be positive numbers")
    if not all(isinstance(c, (int, float)) and math.isfinite(c) and c >= 0 for c in constants):
        raise ValueError("constants must be numbers, 0 or more")
