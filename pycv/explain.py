"""``pycv.explain(model, *inputs)``: what really ran, call by call: kernel, why, time, rate, share of its roofline.

One run of the model under the call log (registry.record) and torch's profiler together. The profiler sees torch's ops
without standing in their way, so the direct path is taken as ever; forward hooks open a range per module and the log
a range per pycv call, so that every op is found beneath its layer, and torch ops that belong to a pycv call are not
counted a second time. The profiler adds about a microsecond to each torch op.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._C._profiler import _RecordFunctionFast as _Range

from . import registry
from .bench import gpu, machine, roofline
from .nn.enable import HANDLERS
from .nn.patch import TWINS

_LAYER = "pycv.explain.layer:"
_REACHABLE = {getattr(function, "__name__", "") for function in HANDLERS}
# Ops that move no data by themselves: views, allocation, questions about dtypes, and those that then call another op if
# there is work to do.
_IDLE = {
    "T", "_reshape_alias", "_unsafe_view", "adjoint", "alias", "alpha_dropout", "as_strided", "as_strided_",
    "chunk", "contiguous", "detach", "detach_", "diagonal", "dropout", "empty", "empty_like", "empty_strided",
    "expand", "expand_as", "feature_dropout", "flatten", "lift_fresh", "mT", "movedim", "narrow", "numpy_T",
    "permute", "promote_types", "reshape", "resize_", "resolve_conj", "resolve_neg", "select", "slice", "split",
    "split_with_sizes", "squeeze", "swapaxes", "t", "to", "transpose", "unbind", "unflatten", "unfold", "unsqueeze",
    "view", "view_as",
}  # fmt: skip


def explain(model: torch.nn.Module, *inputs: Any, **keywords: Any) -> Explanation:
    """Run ``model(*inputs, **keywords)`` once and report every call of a pycv op and every torch op that ran besides.

    The model runs as it would have: in its own mode, under the grad mode and settings in force, with its effects on
    running statistics and random state. What other threads do is not reported, nor is a later backward pass. A first
    call includes what only first calls cost (cold memory, kernels that torch compiles): run the model once before, if
    that should not be in the times.

    Returns
    -------
    Explanation
        ``rows``, one dictionary per call; ``print`` shows them as a table.

    Raises
    ------
    TypeError
        If ``model`` is no module.
    RuntimeError
        If another torch profiler is running.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model={type(model).__name__!r}: expected a torch.nn.Module")
    if torch._C._autograd._profiler_enabled():  # it would lose what it has recorded
        raise RuntimeError("explain: another torch profiler is running")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces its start and end on stderr otherwise
    profiler = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True, with_flops=True
    )
    with registry.record() as log, _layer_ranges(model), profiler:
        output = model(*inputs, **keywords)
    calls = [call for call in log if call.thread == threading.get_ident()]
    return Explanation(_rows(profiler.events(), calls, dict(model.named_modules())), output)


@contextmanager
def _layer_ranges(model: torch.nn.Module) -> Iterator[None]:
    """A profiler range around every call of every module, named after it."""
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            opened: list[_Range] = []
            for handle in _hooked(module, name, opened):
                hooks.callback(handle.remove)
        yield


def _hooked(module: torch.nn.Module, name: str, opened: list[_Range]):
    def enter(*_):
        opened.append(_Range(_LAYER + name))
        opened[-1].__enter__()

    def leave(*_):
        opened.pop().__exit__(None, None, None)

    yield module.register_forward_pre_hook(enter, prepend=True)
    yield module.register_forward_hook(leave, always_call=True)


# ----------------------------------------------------------------------------------------- from events to rows


def _rows(events: Any, log: list[registry.Call], modules: dict[str, torch.nn.Module]) -> list[dict[str, Any]]:
    tops = sorted((e for e in events if e.cpu_parent is None), key=lambda e: e.time_range.start)
    ranges = sorted((e for e in events if e.name == registry.RANGE), key=lambda e: e.time_range.end)
    calls = {id(e): call for e, call in zip(ranges, log, strict=True)}
    rows: list[dict[str, Any]] = []
    for event in tops:
        _visit(event, "", calls, modules, rows)
    return rows


def _visit(event: Any, layer: str, calls: dict, modules: dict, rows: list[dict[str, Any]]) -> None:
    """Adds the rows of one event: a pycv call, a torch op, or whatever a range or autograd function encloses."""
    if id(event) in calls:
        rows.append(_call_row(layer, calls[id(event)]))
        return
    if event.name.startswith(_LAYER):
        layer = event.name[len(_LAYER) :]
    elif not _contains(event, lambda e: id(e) in calls or e.name.startswith(_LAYER)):
        if _contains(event, lambda e: e.name.removeprefix("aten::") not in _IDLE):
            rows.append(_torch_row(layer, event, modules.get(layer)))
        return
    for child in sorted(event.cpu_children, key=lambda e: e.time_range.start):
        _visit(child, layer, calls, modules, rows)


def _contains(event: Any, wanted: Callable[[Any], bool]) -> bool:
    return wanted(event) or any(_contains(child, wanted) for child in event.cpu_children)


def _call_row(layer: str, call: registry.Call) -> dict[str, Any]:
    problem, choice = call.choice.problem, call.choice
    gflops = problem.flops / call.seconds / 1e9 if call.seconds > 0 else None
    return {
        "layer": layer,
        "op": f"{problem.op}.{problem.pass_}",
        "problem": str(problem),
        "kernel": choice.kernel.name,
        "reason": choice.reason,
        "rejected": list(choice.rejected),
        "estimates": dict(choice.estimates),
        "basis": choice.basis,
        "seconds": call.seconds,
        "gflops": gflops,
        "roofline": _roofline_share(choice, call.seconds),
    }


def _roofline_share(choice: registry.Choice, seconds: float) -> float | None:
    """The least time that the machine's peaks allow over the time it took; None where no peak is known."""
    if seconds <= 0:
        return None
    try:
        peaks = gpu.recorded() if choice.problem.device == "cuda" else machine.peaks()
    except RuntimeError:  # measuring takes the C++ kernels
        return None
    placed = roofline.place(choice.problem, choice.plan, peaks, choice.kernel.name) if peaks is not None else None
    return None if placed is None else placed.share(seconds)


def _torch_row(layer: str, event: Any, module: torch.nn.Module | None) -> dict[str, Any]:
    seconds = event.time_range.elapsed_us() / 1e6
    flops = _total_flops(event)
    shapes = " ".join("x".join(map(str, shape)) for shape in event.input_shapes or () if shape)
    return {
        "layer": layer,
        "op": event.name,
        "problem": shapes,
        "kernel": "torch:torch",
        "reason": _why_torch(event.name, module),
        "rejected": [],
        "estimates": {},
        "basis": "",
        "seconds": seconds,
        "gflops": flops / seconds / 1e9 if flops and seconds > 0 else None,
        "roofline": None,
    }


def _total_flops(event: Any) -> float:
    return (event.flops or 0) + sum(_total_flops(child) for child in event.cpu_children)


def _why_torch(op: str, module: torch.nn.Module | None) -> str:
    if type(module) in TWINS:
        return "torch.nn layer: pycv.patch swaps it"
    if op.removeprefix("aten::").rstrip("_") not in _REACHABLE:
        return "pycv has no kernel for it"
    if type(module) in TWINS.values():
        return "autocast, a torch mode, a transform or a foreign tensor type"
    return "functional call: pycv.enable reaches it"


# ------------------------------------------------------------------------------------------------- the report


class Explanation:
    """What :func:`explain` saw.

    Attributes
    ----------
    rows : list of dict, in the order in which the calls began: ``layer`` (module path, "" for the model itself),
        ``op``, ``problem`` (its one-line text; for torch ops the input shapes), ``kernel`` ("backend:algorithm"),
        ``reason``, ``rejected`` (kernels that could not run it, and why), ``estimates`` (the seconds by which the
        kernel was chosen among its contenders, by name), ``basis`` ("predicted" by the cost model, "measured" by
        autotune, or "" where there was no choice), ``seconds``, ``gflops`` (GFLOP/s of the direct algorithm, or None)
        and ``roofline`` (share of what the machine's peaks allow, 0 to 1, or None). Ops that move no data (views,
        allocation) have no row.
    output : what the model returned.
    """

    def __init__(self, rows: list[dict[str, Any]], output: Any):
        self.rows = rows
        self.output = output

    @property
    def seconds(self) -> float:
        """Time inside the calls; what Python does between them is not in it."""
        return sum(row["seconds"] for row in self.rows)

    def torch_layers(self) -> list[str]:
        """The modules ("" is the model itself) of whose own work torch did something and pycv nothing, or fell back."""
        kernels: dict[str, set[str]] = {}
        fallen_back = set()
        for row in self.rows:
            backend = row["kernel"].partition(":")[0]
            kernels.setdefault(row["layer"], set()).add(backend)
            if backend == "torch" and "::" not in row["op"]:
                fallen_back.add(row["layer"])
        return [layer for layer, backends in kernels.items() if backends == {"torch"} or layer in fallen_back]

    def __str__(self) -> str:
        header = ("layer", "op", "kernel", "ms", "GFLOP/s", "roofline", "why", "problem")
        table = [header, *map(_cells, self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(header))]
        lines = ["  ".join(map(_justified, line, widths, _RIGHT)) for line in table]
        return "\n".join([*(line.rstrip() for line in lines), self._summary()])

    def _summary(self) -> str:
        on_torch = [row for row in self.rows if row["kernel"].startswith("torch:")]
        share = sum(row["seconds"] for row in on_torch) / self.seconds if self.seconds else 0.0
        layers = ", ".join(name or "(model)" for name in self.torch_layers())
        return (
            f"{len(self.rows)} calls, {self.seconds * 1e3:.2f} ms; {len(on_torch)} on torch ({share:.0%} of the time)"
            + (f": {layers}" if layers else "")
        )

    def __repr__(self) -> str:
        return f"<Explanation: {self._summary()}>"


_RIGHT = (False, False, False, True, True, True, False, False)  # the numbers of a row


def _justified(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["layer"] or "(model)",
        row["op"],
        row["kernel"],
        f"{row['seconds'] * 1e3:.3f}",
        "" if row["gflops"] is None else f"{row['gflops']:.1f}",
        "" if row["roofline"] is None else f"{row['roofline']:.0%}",
        row["reason"],
        row["problem"],
    )
