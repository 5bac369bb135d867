"""Small kernels under host execution: right ones pass in every thread order, and each planted bug is caught.

Three builds of the same sources: as the op tests use it (``plain``), under AddressSanitizer (``addresses``), and with
ThreadSanitizer as a race check (``races``).
"""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tools import native, simt

FOLDER = Path(__file__).parent.relative_to(native.ROOT).as_posix()
SOURCES = [f"{FOLDER}/{name}" for name in ("main.cpp", "language.cu", "planted.cu", "tensor_core.cu", "hopper.cu")]
BUILDS = {build.name: build for build in (native.SIMT_PLAIN, native.SIMT_ADDRESSES, native.SIMT_RACES)}
ORDERS = [(order, when) for order in ("forward", "reverse", "random:1") for when in ("eager", "lazy")]
under_sanitizers = pytest.mark.full  # compiling these builds takes half a minute; CI runs them in a stage of its own
MANY_BLOCKS = ("grid_y", "grid_z")  # too many for a sanitizer

# What a planted bug leads to: a wrong result, or an error that matches. LINE is the line with the comment
# "// line: NAME" in its file.
WRONG = r"wrong: element \d+ is "
PLAIN = {
    "dropped_barrier": WRONG + "-1, not 1",
    "dropped_warp_barrier": WRONG + "-1, not 1",
    "tile_overwritten": WRONG,
    "divergent_barrier": r"error: branches_kernel<false>: divergent barrier: other threads wait in __syncthreads at "
    r"planted.cu:\d+ \(planted.cu:LINE, block \(0, 0, 0\), thread \(16, 0, 0\)\)",
    "barrier_after_return": r"error: early_return_kernel<false>: divergent barrier: this thread ends, others wait "
    r"\(planted.cu:LINE, block \(0, 0, 0\), thread \(63, 0, 0\)\)",
    "deadlock": r"error: deadlock_kernel<false>: deadlock: 16 threads wait in __syncthreads at planted.cu:\d+, "
    r"16 threads wait in shuffle at planted.cu:LINE \(planted.cu:LINE, block \(0, 0, 0\), thread \(0, 0, 0\)\)",
    "lax_wait": WRONG + "-?nan",
    "wrong_stage": WRONG + "-?nan",
    "misaligned_vector": r"error: vector_kernel: vector access of 16 bytes is misaligned by 4 \(planted.cu:LINE, ",
    "misaligned_copy": r"error: misaligned_copy_kernel: target of an asynchronous copy of 8 bytes is misaligned by 4 "
    r"\(planted.cu:LINE, ",
    "dynamic_bounds": r"error: dynamic_bounds_kernel: wrote beyond its 256 bytes of dynamic shared memory \(block ",
    "below_dynamic_shared": r"error: below_kernel: wrote beyond its 256 bytes of dynamic shared memory \(block ",
    "uninitialised_static_shared": WRONG + "-?nan, not 5",
    "uninitialised_dynamic_shared": WRONG + "-?nan, not 5",
    "own_lane_not_in_mask": r"error: own_lane_kernel<false>: __syncwarp: own lane is not in the mask 0x0000fffe ",
    "masks_differ": r"error: masks_kernel<false>: shuffle with mask 0xffff0001 meets shuffle with mask 0xffffffff of "
    r"lane 0 at planted.cu",
    "operations_differ": r"error: operations_kernel<false>: vote with mask 0xffffffff meets shuffle with mask "
    r"0xffffffff of lane 0 at planted.cu",
    "shuffle_from_inactive_lane": r"error: inactive_lane_kernel<false>: lane 0 reads lane 16, which takes no part ",
    "lane_has_ended": r"error: ended_lane_kernel<false>: shuffle: lane 3 of the mask has ended ",
    "trap": r"error: trap_kernel: __trap \(planted.cu:LINE, block \(0, 0, 0\), thread \(5, 0, 0\)\)",
    "threads_per_block": r"error: nothing_kernel: launched with a block of \(513, 2, 1\) threads: at most 1024",
    "block_depth": r"error: nothing_kernel: launched with a block of \(1, 1, 65\) threads",
    "empty_block": r"error: nothing_kernel: launched with a block of \(1, 0, 1\) threads",
    "empty_grid": r"error: nothing_kernel: launched with a grid of \(0, 1, 1\) blocks: at least one",
    "grid_y": r"error: nothing_kernel: launched with a grid of \(1, 65536, 1\) blocks",
    "grid_z": r"error: nothing_kernel: launched with a grid of \(1, 1, 65536\) blocks",
    "dynamic_shared_bytes": r"error: nothing_kernel: launched with 0 \+ 232449 bytes of shared memory",
    "static_shared_bytes": r"error: static_shared_kernel<49153>: launched with 49153 bytes of static shared memory",
    "fragments_of_half": WRONG,
    "fragments_of_bfloat16": WRONG,
    "fragments_of_tf32": WRONG,
    "load_matrices_transposed": WRONG,
    "row_of_a_matrix": r"error: load_kernel<false, 32>: ldmatrix of a row of 16 bytes is misaligned by 8 "
    r"\(tensor_core.cu:LINE, ",
    "lanes_of_a_matrix": r"error: load_kernel<false, 24>: ldmatrix needs all 32 lanes of a warp \(tensor_core.cu:\d+, ",
    "operand_not_rounded": WRONG,
    "fragments_before_they_arrive": WRONG + "-?nan",
    "stage_reused_early": WRONG,
    "stage_released_early": WRONG,
    "wrong_phase": r"error: product_kernel: deadlock: 1 threads wait in barrier_wait at hopper.cu:LINE, 128 threads ",
    "loads_not_awaited": WRONG,
    "products_not_fenced": r"error: product_kernel: a product without a fence before it \(hopper.cu:LINE, ",
    "products_not_awaited": r"error: product_kernel: a thread ends before its products are done \(hopper.cu:\d+, ",
    "too_few_bytes_expected": r"error: product_kernel: deadlock: .* 128 threads wait in barrier_wait "
    r"at hopper.cu:LINE ",
    "too_many_arrivals": r"error: product_kernel: deadlock: ",
    "stage_off_alignment": r"error: product_kernel: box in shared memory of 1024 bytes is misaligned by 512 "
    r"\(hopper.cu:LINE, ",
    "results_not_fenced": r"error: product_kernel: reads byte 32768 of shared memory, which a thread has written "
    r"without fence_async_copies \(hopper.cu:LINE, ",
    "stores_not_awaited": WRONG,
    "another_thread_awaits_stores": WRONG,
    "barrier_not_initialised": r"error: no_init_kernel<false>: a barrier that was not initialised \(hopper.cu:LINE, ",
    "named_barrier_counts_differ": r"error: named_kernel<false>: a named barrier of 32 threads, others wait for 64 "
    r"\(hopper.cu:LINE, ",
    "shared_bytes_together": r"error: static_shared_kernel<1024>: launched with 1024 \+ 231425 bytes of shared memory",
}
ADDRESSES = {
    "misaligned_float4": r"planted.cu:LINE:\d+: runtime error: .* misaligned address .* requires 16 byte alignment",
    "global_bounds": r"heap-buffer-overflow .*planted.cu:LINE in difference_kernel",
    "async_bounds": r"error: async_bounds_kernel<false>: an asynchronous copy reads out of bounds \(planted.cu:LINE, ",
    "static_bounds": r"global-buffer-overflow .*planted.cu:LINE in static_bounds_kernel",
    "static_overrun": r"global-buffer-overflow .*planted.cu:LINE in static_overrun_kernel",
    "dynamic_bounds": r"use-after-poison .*planted.cu:LINE in dynamic_bounds_kernel",
}
# No thread order shows these: threads run one at a time here.
RACES = {
    "lost_update": r"data race .*'block \(0, 0, 0\) thread \(\d+, 0, 0\)'.*planted.cu:LINE in count_kernel<false>",
    "lost_block": r"data race .*planted.cu:LINE in total_kernel<false>",
    "shuffle_is_no_barrier": r"data race .*planted.cu:\d+ in shuffle_order_kernel<false>",
}
# These are seen by their results, too.
ALSO_RACES = {
    "dropped_barrier": r"data race .*planted.cu:\d+ in exchange_kernel<false>",
    "dropped_warp_barrier": r"data race .*planted.cu:\d+ in warp_exchange_kernel<false>",
    "tile_overwritten": r"data race .*planted.cu:\d+ in rounds_kernel<false>",
    "wrong_stage": r"data race .*planted.cu:\d+ in pipeline_kernel",
    "stores_not_awaited": r"data race .*product_kernel tests/simt/hopper.cu:\d+",
    "stage_released_early": r"data race .*product_kernel tests/simt/hopper.cu:\d+",
}


@cache
def program(name: str) -> Path:
    build = BUILDS[name]
    return simt.make(native.ROOT / "build/simt" / name, native.simt_jobs(SOURCES, build), build.link_options)


def run(build: str, *names: str, order: str = "forward", when: str = "lazy") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYCV_SIMT_ORDER": order, "PYCV_SIMT_ASYNC": when}
    return subprocess.run([program(build), *names], capture_output=True, text=True, env=environment, timeout=120)


@cache
def names() -> list[str]:
    return run("plain").stdout.split()


def outcome(build: str, name: str, **settings) -> str:
    result = run(build, f"{name}.wrong", **settings)
    return result.stdout + result.stderr


def expected(pattern: str, name: str) -> re.Pattern:
    files = [(native.ROOT / source).read_text().splitlines() for source in SOURCES]
    marked = (i for lines in files for i, line in enumerate(lines, 1) if line.endswith(f"// line: {name}"))
    number = next(marked, 0)
    return re.compile(pattern.replace("LINE", str(number)), re.DOTALL)


@pytest.mark.parametrize(("order", "when"), ORDERS)
def test_right_kernels(order, when):
    right = [name for name in names() if not name.endswith(".wrong")]
    result = run("plain", *right, order=order, when=when)
    assert result.stdout.splitlines() == [f"{name}: ok" for name in right], result.stderr


@under_sanitizers
@pytest.mark.parametrize("build", ["addresses", "races"])
@pytest.mark.parametrize(("order", "when"), [("forward", "lazy"), ("random:2", "eager")])
def test_right_kernels_under_sanitizers(build, order, when):
    right = [name for name in names() if not name.endswith(".wrong") and name not in MANY_BLOCKS]
    result = run(build, *right, order=order, when=when)
    assert (result.stdout.splitlines(), result.returncode) == ([f"{name}: ok" for name in right], 0), result.stderr


def test_every_planted_bug_is_expected_to_be_caught():
    assert {f"{name}.wrong" for name in (*PLAIN, *ADDRESSES, *RACES)} == {n for n in names() if n.endswith(".wrong")}


@pytest.mark.parametrize("name", PLAIN)
def test_planted_bug(name):
    assert expected(PLAIN[name], name).search(outcome("plain", name))


@under_sanitizers
@pytest.mark.parametrize("name", ADDRESSES)
def test_planted_bug_with_addresses_checked(name):
    assert expected(ADDRESSES[name], name).search(outcome("addresses", name))


@under_sanitizers
@pytest.mark.parametrize("name", [*RACES, *ALSO_RACES])
def test_planted_race(name):
    assert expected({**RACES, **ALSO_RACES}[name], name).search(outcome("races", name))


@pytest.mark.parametrize("name", RACES)
def test_no_order_shows_a_pure_race(name):
    """Why the race check is needed."""
    for order, when in ORDERS:
        assert outcome("plain", name, order=order, when=when) == f"{name}.wrong: ok\n"


def test_a_lax_wait_shows_only_when_copies_are_lazy():
    assert outcome("plain", "lax_wait", when="eager") == "lax_wait.wrong: ok\n"


@under_sanitizers
def test_a_stage_that_is_reused_early_is_a_race_when_copies_are_eager():
    assert "data race" in outcome("races", "stage_reused_early", when="eager")


@pytest.mark.parametrize(("order", "when"), [("sideways", "lazy"), ("random:x", "lazy"), ("forward", "late")])
def test_unknown_settings_are_refused(order, when):
    told = run("plain", "tiled_product", order=order, when=when).stdout
    assert "error: PYCV_SIMT_" in told and f", not '{order if when == 'lazy' else when}'" in told
