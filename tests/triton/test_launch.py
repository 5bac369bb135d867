"""Launches: the first is Triton's own, later ones go to what it compiled, with the same arguments."""

from __future__ import annotations

from typing import Any

import pytest
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from pycv.kernels import triton as backend
from pycv.kernels.triton import launch
from pycv.problem import parse

from . import ahead
from .test_compiled import EVERY

pytestmark = pytest.mark.skipif(backend.interpreted(), reason="TRITON_INTERPRET=1: nothing is compiled")


class Compiled:
    """What Triton takes for a compiled kernel. Notes down how it is run."""

    function = packed_metadata = None

    def __init__(self) -> None:
        self.runs: list[tuple[Any, ...]] = []

    def launch_metadata(self, grid, stream, *arguments):
        return None

    def run(self, x, y, z, stream, function, packed, metadata, before, after, *arguments) -> None:
        self.runs.append((x, y, z, *map(plain, arguments)))

    __getitem__ = triton.compiler.CompiledKernel.__getitem__

    def _init_handles(self) -> None: ...


def plain(argument: Any) -> Any:
    """What the device sees of it."""
    if isinstance(argument, TensorDescriptor):
        return plain(argument.base), argument.shape, argument.strides, argument.block_shape
    return argument.data_ptr() if hasattr(argument, "data_ptr") else argument


@pytest.fixture
def compiled(monkeypatch):
    """All that is compiled, instead of compiling it."""
    made: list[Compiled] = []

    def compile(*arguments: Any, **named: Any) -> Compiled:
        made.append(Compiled())
        return made[-1]

    monkeypatch.setattr(triton.JITFunction, "_do_compile", compile)
    monkeypatch.setattr(ahead._Driver, "get_current_device", lambda self: "nothing is compiled for this one yet")
    monkeypatch.setattr(launch, "_device_count", lambda: 1)
    return made


def launches(text: str, algorithm: str) -> tuple[launch.Launch, ...]:
    (kernel,) = ahead.kernels(problem := parse(text), algorithm)
    return kernel.plan(problem, 1, 2**28).launches


@pytest.mark.parametrize(("text", "algorithm"), EVERY)
def test_later_launches_pass_what_the_first_one_does(text, algorithm, compiled):
    with ahead.pretending(90):
        for one in launches(text, algorithm):
            addresses = {name: 4096 * (place + 1) for place, name in enumerate(one._pointers)}
            addresses["out" if "out" in addresses else next(iter(addresses))] = launch.present(0)
            optional = {"bias", "residual", "forward_output", "grad_residual", "running_mean"} & addresses.keys()
            for absent in (set(), optional):
                del compiled[:]
                given = {name: address for name, address in addresses.items() if name not in absent}
                for _ in range(3):
                    one(**given)
                (made,) = compiled
                assert len(made.runs) == 3 and made.runs[0] == made.runs[1] == made.runs[2]
                if not optional:
                    break


def test_what_changes_the_code_compiles_anew(compiled):
    (product,) = launches("gemm.forward m64n64k64 f16 cuda", "tiled")
    aligned = {"a": 4096, "b": 8192, "out": 12288}
    scaled = {"alpha": launch.bits(2.0), "beta": launch.bits(3.0), "SCALED": True}
    with ahead.pretending(90):
        for numbers, addresses, count in (
            ({}, aligned, 1), ({}, aligned | {"a": 1 << 20}, 1), ({}, aligned | {"a": 4098}, 2),
            ({}, aligned | {"bias": 64}, 3), (scaled, aligned, 4), (scaled | {"alpha": launch.bits(0.5)}, aligned, 4),
            ({}, aligned | {"a": launch.present(0)}, 4),
        ):  # fmt: skip
            product(numbers, **addresses)
            assert len(compiled) == count
    first, last = compiled[3].runs
    changed = [(before, after) for before, after in zip(first, last, strict=True) if before != after]
    assert changed == [(launch.bits(2.0), launch.bits(0.5))]


def test_numbers_of_a_launch_replace_those_it_was_made_with(compiled):
    gather = launches("conv2d.grad_weight n33c64h8w8 k64r3s3 p1 g32 f32 nchw cuda", "im2col")[0]
    with ahead.pretending(80):
        for image in range(18):
            gather({"first_image": image, "group": 7}, source=4096, columns=8192)
    (made,) = compiled
    places = [len(("x", "y", "z")) + gather._places[name] for name in ("first_image", "group")]
    assert [[run[place] for place in places] for run in made.runs] == [[image, 7] for image in range(18)]


def test_each_device_has_its_own(compiled, monkeypatch):
    (product,) = launches("gemm.forward m64n64k64 f16 cuda", "tiled")
    entered = []
    monkeypatch.setattr(launch, "_device_count", lambda: 2)
    monkeypatch.setattr(launch, "_ordinal", lambda: lambda address: address >> 20)
    monkeypatch.setattr(launch.torch.cuda, "device", lambda device: Entered(entered, device))
    with ahead.pretending(90):
        for device in (0, 1, 0, 1):
            product(a=(device << 20) + 4096, b=(device << 20) + 8192, out=(device << 20) + 12288)
    assert entered == [0, 1, 0, 1] and [len(made.runs) for made in compiled] == [2, 2]


class Entered:
    def __init__(self, log: list[int], device: int) -> None:
        self._log, self._device = log, device

    def __enter__(self) -> None:
        self._log.append(self._device)

    def __exit__(self, *exception) -> None: ...
