"""Goals on a GPU, class by class, as data: how many times faster than whom the kernels of a backend have to be.

The class of a problem is what stands before the slash in its name (problems.txt). A rival is ``eager`` (torch's own
call, in the problem's layout), ``compiled`` (torch.compile), ``torch`` (the faster of both), ``templates`` (Inductor's
Triton templates) or ``cuda`` (the fastest of pycv's CUDA C++ kernels). The ratios hold on an H100.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Rival = Callable[[str], "Row | None"]


@dataclass(frozen=True)
class Goal:
    """What the fastest kernel of ``backend`` has to reach on every problem of a class.

    Attributes
    ----------
    class_ : of problems.
    must, must_rival : the ratio to reach, and to whom.
    aim, aim_rival : what is better; None: nothing.
    backend : of the kernels.
    only : "strict" (that numeric class), a variant (``3xtf32``), or "": all but those of class fast.
    share : what the aim asks for besides of the bandwidth (the row's share of its roofline).
    """

    class_: str
    must: float
    must_rival: str
    aim: float | None = None
    aim_rival: str = "torch"
    backend: str = "cuda"
    only: str = ""
    share: float = 0.0

    @property
    def kernels(self) -> str:
        return " ".join(filter(None, (self.backend, self.only)))

    def takes(self, kernel: str, numeric_class: str) -> bool:
        """Whether a kernel of this name counts."""
        if not kernel.startswith(f"{self.backend}:") or numeric_class == "fast":
            return False
        return self.only in ("", numeric_class) or kernel.partition("[")[0].endswith(f"/{self.only}")


DENSE = ("gemm_8192", "gemm_4096", "gemm_ragged", "conv_wide", "conv_narrow", "conv_1x1")
GRADIENTS = ("dgrad_s1", "dgrad_s2", "wgrad")
OF_TORCH_EAGER = ("depthwise", "depthwise_grad", "pool", "pool_grad")
GOALS = (
    Goal("gemm_8192", 0.97, "torch", 1.02),
    Goal("gemm_4096", 1.00, "torch", 1.05),
    Goal("gemm_ragged", 0.95, "torch", 1.10),
    Goal("gemm_f32", 0.90, "torch", 1.05, only="strict"),
    Goal("gemm_f32", 1.6, "eager", 2.2, "eager", only="3xtf32"),
    Goal("gemm_skinny", 1.0, "torch", 1.5),
    Goal("conv_wide", 0.90, "torch", 1.05),
    Goal("conv_narrow", 1.0, "torch", 1.5),
    Goal("conv_1x1", 1.2, "eager", 1.05, "compiled"),
    Goal("dgrad_s1", 0.9, "torch", 1.05),
    Goal("dgrad_s2", 0.9, "torch", 1.3),
    Goal("wgrad", 0.85, "torch", 1.1),
    Goal("stem", 1.5, "torch", 4.0),
    Goal("conv_f32", 1.0, "torch", 1.3),
    Goal("depthwise", 1.5, "torch", 2.5),
    Goal("depthwise_grad", 1.5, "torch", 2.5),
    Goal("grouped", 1.5, "torch", 3.0),
    Goal("pool", 2.0, "eager", 1.2, "compiled", share=0.9),
    Goal("pool_grad", 1.5, "torch", 2.5),
    Goal("batch_norm", 1.5, "eager", 1.0, "compiled"),
    Goal("streaming", 0.98, "torch", 1.0),
    *(Goal(name, 1.0, "templates", backend="triton") for name in (*DENSE, "gemm_f32", "conv_f32")),
    *(Goal(name, 0.85, "cuda", backend="triton") for name in (*DENSE, *GRADIENTS)),
    *(Goal(name, 1.5, "eager", backend="triton") for name in OF_TORCH_EAGER),
)
WITHOUT = ("ladder", "more")  # classes of problems that no goal is about


def class_of(name: str) -> str:
    return name.partition("/")[0]


def verdict(goal: Goal, own: Row | None, rival: Rival) -> str:
    """ "aim", "must", "missed", or "not measured": what the goal speaks of did not run."""
    must = ratio(own, rival(goal.must_rival))
    aim = None if goal.aim is None else ratio(own, rival(goal.aim_rival))
    if own is None or must is None:
        return "not measured"
    if must < goal.must:
        return "missed"
    enough = goal.aim is not None and aim is not None and aim >= goal.aim
    return "aim" if enough and (own["roofline"] or 0.0) >= goal.share else "must"


def ratio(own: Row | None, rival: Row | None) -> float | None:
    """How many times faster."""
    return rival["seconds"] / own["seconds"] if own and rival else None
