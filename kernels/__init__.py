"""Kernels, by backend. A kernel is one entry: what it computes, what it supports, and how to plan it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import getsourcefile, unwrap
from pathlib import Path
from typing import Any, Protocol


class Plan(Protocol):
    """What a kernel prepares for one problem: immutable, shared between threads, run with raw pointers.

    ``run`` takes the pointers of its family (csrc/bindings) and allocates nothing. Convolution and GEMM plans also
    have ``workspace_bytes``, ``prepared_weight_bytes`` (0: the weight is used as it is),
    ``prepare_weight(weight, prepared)`` and ``cost`` (counts of work, csrc/cpu/plan.h).
    """

    def run(self, *pointers: int, **scalars: Any) -> None: ...


@dataclass(frozen=True)
class Kernel:
    """One registry entry.

    Attributes
    ----------
    op, pass_ : what it computes, as in the text of a problem.
    backend, algorithm, variant : its name. Kernels of one algorithm differ in their variant (a tile size); settings
        name the algorithm, or one variant of it as ``algorithm/variant``.
    numeric_class : "strict", "default" or "fast"; asserted by tests.
    supports : returns None, or in words why it cannot run this problem.
    plan : (problem, threads, workspace_limit in bytes) -> Plan. None for the torch backend, which the op calls itself.
    tiles : of a kernel that has the choice how much to compute at a time: problem -> what is worth measuring, first
        what ``plan`` takes by itself. ``plan`` then takes any of them, too, as ``tile``. Each has a short text.
    tile : that text, of a kernel whose ``plan`` takes this one always: one that ``in_tiles`` made.
    """

    op: str
    pass_: str
    backend: str
    algorithm: str
    supports: Callable[[Any], str | None]
    plan: Callable[..., Any] | None
    numeric_class: str = "strict"
    deterministic: bool = True
    variant: str = ""
    tiles: Callable[[Any], Sequence[Any]] | None = None
    tile: str = ""

    @property
    def full_algorithm(self) -> str:
        return f"{self.algorithm}/{self.variant}" if self.variant else self.algorithm

    @property
    def name(self) -> str:
        return f"{self.backend}:{self.full_algorithm}" + (f"[{self.tile}]" if self.tile else "")

    @property
    def on_gpu(self) -> bool:
        """Written for a GPU: not to be trusted before it was verified on one (pycv/choice/verified.py)."""
        return self.backend in ("cuda", "triton")

    @property
    def file(self) -> Path | None:
        """The source of its plan; None where it comes from no file: that of a prompt, or of a callable object."""
        try:
            name = getsourcefile(unwrap(self.plan)) if self.plan is not None else None
        except TypeError:
            return None
        return Path(name).resolve() if name is not None and Path(name).is_file() else None

    def in_tiles(self, problem: Any) -> list[Kernel]:
        """The same kernel with each of its tiles for a problem; itself where it has no choice."""
        tiles = self.tiles(problem) if self.tiles is not None else ()
        if len(tiles) < 2 or self.plan is None:
            return [self]
        return [replace(self, plan=partial(self.plan, tile=tile), tiles=None, tile=str(tile)) for tile in tiles]
