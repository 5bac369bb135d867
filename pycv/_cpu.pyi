"""The compiled CPU kernels (csrc/bindings/cpu.cpp): plans over raw pointers. Sizes and strides are in elements."""

from typing import Any

class Cost:
    multiply_adds: float
    vector_elements: float
    bytes: float
    regions: float

class ConvPlan:
    workspace_bytes: int
    cost: Cost
    prepare_cost: Cost
    takes_plain_weight: bool
    def launch(self, *addresses: int) -> None: ...
    def launch_plain(self, *addresses: int) -> None: ...
    prepared_weight_bytes: int
    def prepare_weight(self, weight: int, prepared: int) -> None: ...
    def run(
        self,
        input: int,
        weight: int,
        output: int,
        bias: int = 0,
        residual: int = 0,
        workspace: int = 0,
        input_scale: int = 0,
        input_shift: int = 0,
        plain_weight: bool = False,
    ) -> None: ...

class GemmPlan:
    workspace_bytes: int
    cost: Cost
    def launch(self, *addresses: int) -> None: ...
    prepared_weight_bytes: int
    def prepare_weight(self, b: int, prepared: int) -> None: ...
    def run(
        self,
        a: int,
        b: int,
        out: int,
        bias: int = 0,
        residual: int = 0,
        alpha: float = 1.0,
        beta: float = 1.0,
        workspace: int = 0,
        b_prepared: bool = False,
    ) -> None: ...

class PoolPlan:
    def launch(self, *addresses: int) -> None: ...
    def run(self, input: int, output: int, indices: int = 0) -> None: ...

class NormPlan:
    workspace_bytes: int
    def run(self, **pointers_and_scalars: float) -> None: ...

class PointwisePlan:
    def launch(self, *addresses: int) -> None: ...
    def run(self, input: int, grad_output: int, output: int) -> None: ...

compiler: str

def isa() -> str: ...
def compiled_isas() -> list[str]: ...
def fma_flops(threads: int, dtype: str, seconds: float) -> float: ...
def read_bandwidth(threads: int, bytes: int, seconds: float) -> float: ...
def copy_bandwidth(threads: int, bytes: int, seconds: float) -> float: ...
def conv_plan(*fields: Any) -> ConvPlan: ...
def gemm_plan(*fields: Any) -> GemmPlan: ...
def pool_plan(*fields: Any) -> PoolPlan: ...
def norm_plan(*fields: Any) -> NormPlan: ...
def pointwise_plan(*fields: Any) -> PointwisePlan: ...
