"""The mutants: an edit of one file, and the test that must turn red."""

from dataclasses import dataclass

SELFTEST = "selftest"  # the native self-test, part of the suite as tests/native/test_native.py


@dataclass(frozen=True)
class Mutant:
    """``original`` stands exactly once in ``file``; ``test`` is SELFTEST or what to give to pytest."""

    file: str
    original: str
    replacement: str
    test: str = SELFTEST

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.original.split())!r} -> {' '.join(self.replacement.split())!r}"


RELU, MAX_POOL, AVG_POOL = "csrc/cpu/relu.cpp", "csrc/cpu/max_pool.cpp", "csrc/cpu/avg_pool.cpp"
POOL_PLANES, POOL_PIXELS = "csrc/cpu/max_pool_planes.h", "csrc/cpu/max_pool_pixels.h"
RELU_TESTS, POOL_TESTS, NORM_TESTS = "tests/ops/test_relu.py", "tests/ops/test_pool.py", "tests/ops/test_norm.py"
POOL, NORM, BATCH_NORM = "csrc/cpu/pool.h", "csrc/cpu/norm.h", "csrc/cpu/batch_norm.cpp"
TILES = "csrc/cpu/channel_tiles.h"
LRN, CHANNEL_SUM = "csrc/cpu/local_response_norm.cpp", "csrc/cpu/channel_sum.cpp"
GATHER, OPERANDS = "csrc/cpu/conv_gather.h", "csrc/cpu/conv_operands.h"
GATHER_PRODUCT, GRAD_WEIGHT = "csrc/cpu/conv_product.h", "csrc/cpu/conv_grad_weight.h"
PRODUCT, PANELS = "csrc/cpu/gemm_product.h", "csrc/cpu/gemm_panels.h"
TAP_TILE, ROW_VECTORS = "csrc/cpu/tap_tile.h", "csrc/cpu/row_vectors.h"
CHANNELS, CHANNEL_GATHER = "csrc/cpu/depthwise_channels.h", "csrc/cpu/depthwise_channels.cpp"
CHANNEL_GRAD_WEIGHT, PADDED = "csrc/cpu/depthwise_channels_grad_weight.cpp", "csrc/cpu/padded_planes.h"
CHANNEL_PLANES, TRANSPOSED = "csrc/cpu/channel_planes.h", "csrc/cpu/depthwise_transposed.cpp"
POOL_TRANSPOSED = "csrc/cpu/pool_transposed.h"
PLANES, PLANE_GRAD_WEIGHT = "csrc/cpu/depthwise_planes.cpp", "csrc/cpu/depthwise_planes_grad_weight.cpp"
POOL_WINDOWS, PLANE_SUMS = "csrc/cpu/pool_windows.h", "csrc/cpu/plane_sums.h"
MOVES, TILE = "csrc/cpu/vector_moves.h", "csrc/cpu/gemm_microkernel.cpp"
PACKED, THIN = "csrc/cpu/gemm_packed.cpp", "csrc/cpu/gemm_thin.h"

FFT, FFT_TILE, FFT_CONV, FFT_TESTS = (
    "csrc/cpu/fft.h",
    "csrc/cpu/fft_tile.h",
    "csrc/cpu/conv_fft.cpp",
    "tests/cpu/test_fft.py",
)

WINOGRAD, WINOGRAD_BLOCKS, WINOGRAD_IMAGE, WINOGRAD_SUMS, WINOGRAD_TESTS = (
    "csrc/cpu/conv_winograd.cpp",
    "csrc/cpu/winograd_blocks.h",
    "csrc/cpu/winograd_image.h",
    "csrc/cpu/winograd_grad_weight.cpp",
    "tests/cpu/test_winograd.py",
)
PHASES, STRIDED_TESTS = "csrc/cpu/winograd_phases.h", "tests/cpu/test_winograd_strided.py"
STREAMING_TESTS = "tests/cpu/test_streaming.py"
SIMT_TESTS = "tests/simt/test_simt.py::test_planted_bug tests/simt/test_simt.py::test_right_kernels"
NUMBA, NUMBA_CUDA_TESTS = "kernels/numba/", "tests/numba/test_cuda.py"
NUMBA_THREADS_TEST = "tests/numba/test_backend.py::test_torchs_runtime_and_the_users_thread_count"
CUDA_RELU, CUDA_RELU_TESTS = "csrc/cuda/relu.cu", "tests/cuda/test_relu.py"
CUDA_FAR_TESTS = "tests/cuda/test_far_apart.py"
CUDA_TILES, CUDA_PIPELINE, CUDA_WARPS, CUDA_GEMM_TESTS = (
    "csrc/cuda/gemm_tiles.h",
    "csrc/cuda/gemm_pipeline.h",
    "csrc/cuda/gemm_simt_8_warp_tiled.cu",
    "tests/cuda/test_gemm.py",
)
CUDA_MMA, CUDA_MMA_GEMM, CUDA_MMA_CONV = (
    "csrc/cuda/mma_tile.h",
    "csrc/cuda/gemm_mma.h",
    "csrc/cuda/conv_mma_kernel.h",
)
CUDA_MMA_PLAN, CUDA_MMA_GEMM_TESTS, CUDA_MMA_CONV_TESTS = (
    "csrc/cuda/conv_mma_sync.cu",
    " ".join(
        f"tests/cuda/test_mma_gemm.py::test_{it}" for it in ("sizes_across_the_edges_of_tiles", "numeric_classes")
    ),
    " ".join(
        f"tests/cuda/test_mma_conv.py::test_{it}" for it in ("every_arithmetic_and_layout", "one_and_three_dimensions")
    ),
)
CUDA_3XTF32_TESTS = "tests/cuda/test_mma_conv.py -k 'numeric_class or range_of_fp32'"
CUDA_MMA_PROLOGUES = "tests/cuda/test_mma_conv.py -k prologue"
CUDA_PROLOGUES = "tests/cuda/test_conv.py -k prologue"
CUDA_MMA_PARTS = "tests/cuda/test_mma_conv.py::test_parts_of_the_depth"
WGMMA_RING, WGMMA_GEMM, WGMMA_WINDOWS, WGMMA_PHASES, WGMMA_FILTERS = (
    "csrc/cuda/group_pipeline.h",
    "csrc/cuda/gemm_wgmma_3_persistent.h",
    "csrc/cuda/conv_windows.h",
    "csrc/cuda/conv_wgmma_phases.h",
    "csrc/cuda/conv_wgmma_grad_weight.cu",
)
WGMMA_GATHER, WGMMA_GATHERED = "csrc/cuda/group_gather.h", "csrc/cuda/gemm_wgmma_3_gathered.h"
WGMMA_OPERANDS, WGMMA_PLAN, WGMMA_COPIES = (
    "csrc/cuda/gemm_wgmma.h",
    "csrc/cuda/gemm_wgmma_3_persistent.cu",
    "csrc/cuda/gemm_wgmma_3_copies.h",
)
WGMMA_ONE_TESTS = "tests/cuda/test_wgmma_gemm.py::test_extents_of_one"
GEMM_TILE_TESTS = "tests/cuda/test_gemm_tiles.py::test_the_rules_own_tile_is_the_first"
MMA_OFFERED = "csrc/cuda/mma_tiles_offered.h"
CONV_TILE_TESTS = " ".join(
    f"tests/cuda/test_conv_tiles.py::test_{it}" for it in ("the_rules_own_tile_is_the_first", "what_is_offered")
)
WGMMA_WORTH_TEST = "tests/cuda/test_wgmma_gemm.py::test_what_is_worth_a_copy"
WGMMA_COPY_TESTS = "tests/cuda/test_wgmma_gemm.py::test_copies_of_batches_and_strides"
WGMMA_GATHERED_TESTS = " ".join(
    f"tests/cuda/test_wgmma_gemm.py::test_{it}"
    for it in ("matrices_that_no_boxes_bring", "more_gathered_tiles_than_stages_and_blocks")
)
WGMMA_STRIDED_TESTS = "tests/cuda/test_wgmma_gemm.py::test_any_strides_and_addresses"
WGMMA_GEMM_TESTS = "tests/cuda/test_wgmma_gemm.py::test_more_tiles_than_stages_and_blocks"
WGMMA_CONV_TESTS = "tests/cuda/test_wgmma_conv.py::test_windows"
WGMMA_PHASE_TESTS = "tests/cuda/test_wgmma_conv.py::test_phases"
WGMMA_PHASE_RESIDUAL_TEST = "tests/cuda/test_wgmma_conv.py::test_phases_with_epilogue_and_wide_pixels"
WGMMA_RESIDUAL_TEST = "tests/cuda/test_wgmma_conv.py::test_residual_and_wide_pixels"
WGMMA_FILTER_GATHER = "csrc/cuda/conv_wgmma_grad_weight_gathered.h"
WGMMA_FILTER_GATHER_TESTS = "tests/cuda/test_wgmma_conv.py::test_grad_weight_of_tf32"
WGMMA_FILTER_TESTS = "tests/cuda/test_wgmma_conv.py::test_grad_weight"
CUDA_POOL, CUDA_POOL_TESTS = "csrc/cuda/pool.h", "tests/cuda/test_pool.py"
CUDA_POOL_ROWS = "csrc/cuda/pool_rows.h"
CUDA_NORM, CUDA_NORM_TESTS = "csrc/cuda/norm.h", "tests/cuda/test_norm.py"
CUDA_CONV_GATHER, CUDA_CONV_TILE, CUDA_CONV_TESTS = (
    "csrc/cuda/conv_gather.h",
    "csrc/cuda/conv_tile_kernel.h",
    "tests/cuda/test_conv.py",
)
CUDA_DIRECT_SHARED, CUDA_STEM = "csrc/cuda/conv_direct.h", "csrc/cuda/conv_direct_stem.h"
CUDA_DIRECT, CUDA_IM2COL = "csrc/cuda/conv_direct.cu", "csrc/cuda/conv_im2col.cu"
CUDA_PRODUCT, CUDA_WINOGRAD, CUDA_WINOGRAD_TILE, CUDA_WINOGRAD_SUMS, CUDA_WINOGRAD_TESTS = (
    "csrc/cuda/batched_product.cu",
    "csrc/cuda/conv_winograd.cu",
    "csrc/cuda/winograd.h",
    "csrc/cuda/winograd_grad_weight.cu",
    "tests/cuda/test_winograd.py",
)
CUDA_FFT, CUDA_FFT_TILE, CUDA_FFT_AXES, CUDA_FFT_CONV, CUDA_FFT_TESTS = (
    "csrc/cuda/fft.h",
    "csrc/cuda/fft_tile.h",
    "csrc/cuda/fft_axes.h",
    "csrc/cuda/conv_fft.cu",
    "tests/cuda/test_fft.py",
)
CUDA_IM2COL_16_TESTS = "tests/cuda/test_conv.py::test_im2col_of_storage_types"
CUDA_FFT_16_TESTS = "tests/cuda/test_fft.py::test_storage_types"
DIRECT_TILE, DIRECT_GATHER = "csrc/cpu/direct_tile.h", "csrc/cpu/direct_gather.h"
DIRECT_WEIGHT, DIRECT_GRAD_WEIGHT = "csrc/cpu/direct_weight.h", "csrc/cpu/direct_grad_weight.h"
POSITIONS, LANES = "csrc/cpu/direct_positions.h", "tests/cpu/test_conv_direct.py"


def _race(file: str, original: str, replacement: str, words: str) -> Mutant:
    """Noticed by the race check alone, as threads write the same values: in the problems that these words choose."""
    test = f"races -q tests/cuda/test_hazards.py::test_problem -m 'full or not full' -k '{words}'"
    return Mutant(f"csrc/cuda/{file}", original, replacement, test)


def _numba(file: str, original: str, replacement: str, case: str) -> Mutant:
    """Noticed by one problem (tests/numba/test_kernels.py, CASES)."""
    return Mutant(NUMBA + file, original, replacement, f"tests/numba/test_kernels.py::test_case[{case}] -m full")


def _triton(file: str, original: str, replacement: str, case: str) -> Mutant:
    """Noticed by one problem in Triton's interpreter (tests/triton/test_kernels.py, CASES)."""
    test = f"tests/triton/test_kernels.py::test_case[{case}] -m full"
    return Mutant(f"kernels/triton/{file}", original, replacement, test)


MUTANTS = [
    # relu: the tail, the mask, NaN
    Mutant(RELU, "    for (; i < count; ++i) out[i]", "    for (; i + 1 < count; ++i) out[i]"),
    Mutant(RELU, "get<Lane>(x + i) <= Lane{}", "get<Lane>(x + i) < Lane{}"),
    Mutant(RELU, "% sizeof(Vec<T>) != 0", "% sizeof(T) != 0", RELU_TESTS),
    Mutant("csrc/cpu/simd.h", "return v < Vec<T>{} ? Vec<T>{} : v;", "return v > Vec<T>{} ? v : Vec<T>{};"),
    # convolution: geometry, padding, phases, groups
    Mutant(GATHER, "filter, 0, 1, -padding, dilation}", "filter, 0, 1, 1 - padding, dilation}"),
    Mutant(
        GATHER,
        "axis.taps = (filter - r + axis.filter_step - 1) / axis.filter_step",
        "axis.taps = (filter - r) / axis.filter_step",
    ),
    Mutant(
        GATHER, "phase < size ? (size - phase + stride - 1) / stride : 0", "phase < size ? (size - phase) / stride : 0"
    ),
    Mutant(OPERANDS, "if (first < 0) low = smaller(positions(-first, step), high);", ""),
    Mutant(
        OPERANDS,
        "g.d.inside(position.d + od) && g.h.inside(position.h + oh) && g.w.inside(position.w + ow)",
        "g.d.inside(position.d + od) && g.w.inside(position.w + ow)",
    ),
    Mutant(GATHER_PRODUCT, "(g.w.first + w * g.w.step) * s.w", "w * g.w.step * s.w"),
    Mutant(GATHER_PRODUCT, "even_axis(offset(o), g.w.step * o.w, count)", "even_axis(offset(o), o.w, count)"),
    Mutant(GATHER_PRODUCT, "if (w + count <= g.w.count) {", "if (w + count <= g.w.count + 1) {"),
    Mutant(
        GRAD_WEIGHT,
        "for (int thread = 1; thread < team; ++thread) sum += from[",
        "for (int thread = 1; thread < team - 1; ++thread) sum += from[",
    ),
    Mutant(GRAD_WEIGHT, "block > part.blocks.begin, false);", "block >= part.blocks.begin, false);"),  # stale workspace
    Mutant(
        GRAD_WEIGHT, "to += panels.begin * product_.stationary.panel_elements;", "", "tests/cpu/test_implicit_gemm.py"
    ),
    Mutant(
        GRAD_WEIGHT,
        "space.packed + (packed.begin - panels.begin) * side.panel_elements",
        "space.packed",
        "tests/cpu/test_implicit_gemm.py",
    ),
    Mutant(GRAD_WEIGHT, "RowFormat::k_contiguous ? s.c : step};", "RowFormat::k_contiguous ? step : step};"),
    # FFT: butterflies, pairs of real rows, what an infinity becomes, tiles, sums over tiles, parts of the filters
    Mutant(
        FFT,
        "z[1] = one, z[2] = two, z[4] = four, z[5] = five;",
        "z[4] = one, z[2] = two, z[1] = four, z[5] = five;",
        FFT_TESTS,
    ),
    Mutant(
        FFT_TILE,
        "second.set(f, {a.im + b.im, b.re - a.re})",
        "second.set(f, {a.im + b.im, a.re - b.re})",
        FFT_TESTS,
    ),
    Mutant(FFT_CONV, "w.run.first += axis.extent - 1;", "w.run.first += axis.filter - 1;", FFT_TESTS),
    Mutant(FFT_CONV, "const bool add = tiles.begin > 0;", "const bool add = false;", FFT_TESTS),
    Mutant(
        FFT_CONV,
        "const int64_t first = part.inputs.begin * (across_ ? 1 : lanes<T>);",
        "const int64_t first = 0;",
        FFT_TESTS,
    ),
    # results past the caches: vectors that are not aligned, and results that are not complete
    Mutant("csrc/cpu/simd.h", "| elements * sizeof(T)", "", STREAMING_TESTS),
    Mutant(ROW_VECTORS, "if (streamed) return store_streaming<T>(p, v);", "if (streamed) return;", STREAMING_TESTS),
    Mutant(CHANNEL_GATHER, "streams_ && is_streamable<T>(to, step)", "streams_", STREAMING_TESTS),
    Mutant(PLANES, "streams_ && is_streamable<T>(to, t.row)", "streams_", STREAMING_TESTS),
    Mutant(CHANNEL_PLANES, "streams && is_streamable<T>(target, planes.stride)", "streams", STREAMING_TESTS),
    Mutant("csrc/cpu/direct_output.h", "streams && is_streamable<T>(to, out.channel)", "streams", STREAMING_TESTS),
    Mutant(WINOGRAD, "streams_ && is_streamable<T>(to.to, to.row, to.pixel)", "streams_", STREAMING_TESTS),
    Mutant(AVG_POOL, "streams_ && is_streamable<T>(y, p_.output.w, runs_.channels)", "streams_", STREAMING_TESTS),
    Mutant(POOL_PIXELS, "streams_ && is_streamable<T>(to, p_.input.w, channels)", "streams_", STREAMING_TESTS),
    Mutant(PRODUCT, "is_streamable<T>(out, tile.row_out.stride, tile.columns)", "true", STREAMING_TESTS),
    # depthwise: taps of a tile, channels beyond the last vector, what an earlier plane left in the padding, columns
    # that overlapping vectors count twice
    Mutant(TAP_TILE, "sum[(i - b) / U] += value * taps[b];", "sum[(i - b) / U] += value * taps[0];"),
    Mutant(CHANNELS, "smaller(v * lanes, channels - lanes)", "v * lanes"),
    Mutant(CHANNEL_GATHER, "sum[p] += bias;", "sum[p] -= bias;"),
    Mutant(PADDED, "strip == positions && phases_d.positions() == 1 && slices() == 1", "strip == positions"),
    Mutant(PLANES, "high[i] = kLanes / 2 + i / 2 + (i % 2 ? kLanes : 0);", "high[i] = i / 2 + (i % 2 ? kLanes : 0);"),
    Mutant(PLANE_GRAD_WEIGHT, "first + l >= x && first + l < width", "first + l < width"),
    Mutant(ROW_VECTORS, "store_first(to + kLanes / 2, half[1], count - kLanes / 2);", ""),
    Mutant(CHANNEL_GRAD_WEIGHT, "sum += load_row<V>(totals + part * total_elements());", ""),
    Mutant(CHANNEL_PLANES, "if (i < positions) body(positions - lanes<T>, lanes<T>);", ""),
    Mutant(TRANSPOSED, "of.bias = tensors.bias ? tensors.bias + c : nullptr;", "of.bias = tensors.bias;"),
    # direct convolution with output channels in lanes: padding, accumulation, parts, phases
    Mutant(DIRECT_TILE, "if (!from) cells.end = cells.begin;", ""),
    Mutant(DIRECT_TILE, "return distance % step * cells + distance / step;", "return distance;"),
    Mutant(DIRECT_TILE, "3 * i - (2 * n - 2) + n", "3 * i - (2 * n - 1) + n"),
    Mutant(DIRECT_GATHER, "if (!first) return {sums.data", "if (false) return {sums.data", LANES),
    Mutant(DIRECT_GATHER, "phase.taps_before = before;", "phase.taps_before = 0;"),
    Mutant(DIRECT_WEIGHT, "c * slot.taps + slot.index", "c + slot.index"),
    Mutant(DIRECT_GRAD_WEIGHT, "for (int t = 1; t < team; ++t) sum +=", "for (int t = 2; t < team; ++t) sum +=", LANES),
    Mutant(POSITIONS, "i / 2 + i % 2 * lanes<T>", "i / 2", LANES),
    # GEMM: tiles, depth blocks, epilogue, packing
    Mutant(PRODUCT, "if (tile.add) v += load_partial<T>(out + j, part);", ""),
    Mutant(PRODUCT, "if (residual) v += sink.beta * load_partial<T>(residual + j, part);", ""),
    Mutant(PRODUCT, "tile.column_bias, tile.row_bias,", "tile.row_bias, tile.column_bias,"),
    Mutant(
        PRODUCT,
        "epilogue.residual_stride = tile.row_residual.stride;",
        "epilogue.residual_stride = tile.row_out.stride;",
    ),
    Mutant(TILE, "sum[i][j] += bias[j];", "sum[i][j] += bias[0];"),
    Mutant(PRODUCT, "block + 1 == p.depth.blocks()", "block == 0"),
    Mutant(
        PANELS,
        "zero_run(to + k * side.stride + count, side.width - count);",
        "zero_run(to + k * side.stride, count);",
    ),
    Mutant(
        PANELS,
        "to[j * stride + i] = scratch[i * kScratchStride<T> + j]",
        "to[j * stride + i] = scratch[i * kScratchStride<T>]",
    ),
    # implicit_gemm: partial vectors of a plane, depth blocks and images read in place
    Mutant(GATHER_PRODUCT, "!side.is_lanes || (index.end - index.begin) % lanes<T> == 0", "true"),
    Mutant(
        GATHER_PRODUCT, "position * along + depth.begin * s.c;", "position * along;", "tests/cpu/test_implicit_gemm.py"
    ),
    Mutant(
        GRAD_WEIGHT,
        "index / gather_.w.count * strides.n + index % gather_.w.count * step",
        "index * step",
        "tests/cpu/test_implicit_gemm.py",
    ),
    Mutant(MOVES, "if (i < count) store<T>(to + count - lanes<T>, load<T>(from + count - lanes<T>));", ""),
    Mutant(TILE, "rows += Format == RowFormat::k_contiguous ? 1 : row_stride;", "rows += 1;"),
    Mutant(
        THIN,
        "Range range{begin, smaller(wide_, smaller(begin + mine.end - i, begin + kRange))}",
        "Range range{begin, smaller(wide_, begin + mine.end - i)}",
    ),
    Mutant(THIN, "bias[rows_thin_ ? w : t]", "bias[w]"),
    Mutant(THIN, "rows_thin_ ? load<T>(bias + w) : broadcast<T>(bias[t])", "load<T>(bias + w)"),
    Mutant(THIN, "if (rest > 0) add(whole,", "if (rest > 1) add(whole,"),
    Mutant("csrc/cpu/conv_one_pixel.h", "g.m = p.n, g.n = p.c, g.k = p.k;", "g.m = p.n, g.n = p.c, g.k = p.k - 1;"),
    Mutant("csrc/cpu/conv_one_pixel.h", "prepared_weight_bytes() > 0 && !a.plain_weight;", "false;"),
    Mutant(
        PACKED,
        "{problem.b.batch, depth.block * problem.b.row, kTileWidth<T>}",
        "{problem.b.batch, 0, kTileWidth<T>}",
        "tests/cpu/test_gemm_kernels.py",
    ),
    Mutant(
        PACKED,
        "index.begin * problem.a.row + depth.begin * problem.a.column",
        "index.begin * problem.a.row",
        "tests/cpu/test_gemm_kernels.py",
    ),
    Mutant(
        "csrc/cpu/conv_gaps.h",
        "if (!w_[phase]) clear_row(at, phase, w_.count());",
        ";",
        "tests/cpu/test_implicit_gemm.py",
    ),
    Mutant(PRODUCT, "from[j] + (tile.add ? to : T(0))", "from[j]", "tests/cpu/test_implicit_gemm.py"),
    Mutant(
        TILE,
        "store_streaming<T>(out + i * stride + j * lanes<T>, sum[i][j]);",
        "store_streaming<T>(out + i * stride, sum[i][j]);",
        "tests/cpu/test_implicit_gemm.py",
    ),
    Mutant(PACKED, "part.groups = smaller(end, problem_.batch) - begin;", "part.groups = end - begin;"),
    Mutant(
        "csrc/bindings/problems.h",
        'if (name == "f64") return DType::f64;',
        'if (name == "f64") return DType::f32;',
        "tests/cpu/test_gemm_kernels.py",
    ),
    # pooling: ties, indices, windows, divisors
    Mutant(MAX_POOL, "return value > best || value != value;", "return value >= best || value != value;"),
    Mutant(MAX_POOL, "(value > best[v]) | (value != value);", "value > best[v];"),
    Mutant(MAX_POOL, "(value > best) | (value != value) ? value : best", "value > best ? value : best"),
    Mutant(MAX_POOL, "if (index >= p_.size.count()) return;", "if (index >= p_.size.count() - 1) return;"),
    Mutant(POOL_PLANES, "return total != total;", "return false;"),
    Mutant(POOL_PLANES, "better |= value != value;", ";"),
    Mutant(POOL_PLANES, "pad(odd, source.odd.end, cells_);", ""),
    Mutant(POOL_PLANES, "sum.single += odd[source.odd.begin];", "odd[source.odd.begin] = kLowest;"),
    Mutant(POOL_PLANES, "for (int l = 0; l < kWide; ++l) missing |= found[l];", "", POOL_TESTS),
    Mutant(POOL_WINDOWS, "value = Fold::add(value, columns[x - first][v]);", "value = columns[x - first][v];"),
    Mutant(
        POOL_WINDOWS, "at[count++] = image + offset(s, i, j, k);", "at[count++] = image + offset(s, i, j, w.begin);"
    ),
    Mutant(POOL_WINDOWS, "group.template operator()<1>(channels - L);", "group.template operator()<1>(0);"),
    Mutant(AVG_POOL, "factor != T(0) ? sum * factor : sum / divide", "sum * factor"),
    Mutant(MAX_POOL, "store_names(indices + v * lanes<T>, where[v]);", "store_names(indices, where[v]);"),
    Mutant(MAX_POOL, "begin < 0 ? divide_up(-begin, a.dilation) : 0;", "0;"),
    Mutant(MAX_POOL, "j * axes_.h.dilation, k * axes_.w.dilation);", "j * axes_.h.dilation, k);"),
    Mutant(POOL_PIXELS, "? divide_up(beyond, a.stride) : 0", "? beyond / a.stride : 0"),
    Mutant(POOL_PIXELS, "if (distance % a.dilation == 0)", "if (distance >= 0)"),
    Mutant(POOL_PIXELS, "rows[r].name + k->name}", "k->name}"),
    Mutant(POOL_PLANES, "? distance / axis.dilation * axes_.h.filter", "? distance * axes_.h.filter"),
    Mutant(
        "pycv/ops/max_pool.py",
        "rest // spec.filter[axis], step",
        "rest // size[axis], step",
        "tests/ops/test_pool.py",
    ),
    Mutant("kernels/cpu.py", '"f5": 256', '"f5": _ANY', "tests/cpu/test_winograd.py"),
    Mutant("pycv/tune.py", "statistics.median(seconds)", "max(seconds)", "tests/choice/test_tune.py"),
    Mutant("pycv/choice/fit.py", "least, RELATED_WEIGHT)", "least)", "tests/choice/test_fit.py"),
    Mutant("pycv/choice/fit.py", "fit(samples, nearer,", "fit(samples, guess,", "tests/choice/test_fit.py"),
    Mutant("pycv/choice/model.py", "return prepared or p.k", "return p.k", "tests/choice/test_choose.py"),
    Mutant(
        "pycv/choice/model.py",
        "_cost_counts(cost, problem, _touched(problem, plan))",
        "_cost_counts(cost, problem, cost.bytes)",
        "tests/choice/test_choose.py",
    ),
    Mutant("pycv/problem.py", "d <= i or p == 0 for", "d <= i + 9 or p == 0 for", "tests/test_problem.py"),
    Mutant(PLANE_SUMS, "odd += load<T>(p + i + step);", "", "tests/ops/test_pool.py"),
    Mutant(
        POOL,
        "if (begin < 0) begin += (-begin + a.dilation - 1) / a.dilation * a.dilation;",
        "if (begin < 0) begin = 0;",
    ),
    Mutant(ROW_VECTORS, "block.template operator()<L>(end - L);", ";"),
    Mutant(AVG_POOL, "a.filter < a.size + a.padding - begin ? a.filter : a.size + a.padding - begin", "a.filter"),
    Mutant(AVG_POOL, "clear_pixels(image, p_.input, p_.size, channels);", ""),
    Mutant(POOL_TRANSPOSED, "lanes_to_planes<T>(y + c,", "lanes_to_planes<T>(y,"),
    # normalisation
    Mutant(BATCH_NORM, "a.momentum * variance * unbiased_", "a.momentum * variance"),
    Mutant(
        BATCH_NORM,
        "{{mean, static_cast<T>(invstd * weight), static_cast<T>(sums.of[0]",
        "{{mean, static_cast<T>(invstd * weight), static_cast<T>(0 * sums.of[0]",
    ),
    Mutant(
        BATCH_NORM,
        "at<G>(y, part.at.y, part.step.y, row, v) <= Lane{}",
        "at<G>(y, part.at.y, part.step.y, row, v) < Lane{}",
        "tests/ops/test_norm.py",
    ),
    Mutant(BATCH_NORM, "bias - (mean - rounded) * scale", "bias", "tests/ops/test_norm.py -k near_rounding"),
    Mutant(BATCH_NORM, "if (c < p_.c) {", "if (c < p_.c - 1) {"),
    Mutant(TILES, "return index >= static_cast<Integer>(L - count)", "return index > static_cast<Integer>(L - count)"),
    Mutant(TILES, "smaller(range.end - run * length, length)", "length", "tests/ops/test_norm.py"),
    Mutant(LRN, "clear_borders(scratch, (p_.window - 1) / 2, width)", "clear_borders(scratch, p_.window / 2, width)"),
    Mutant(NORM, "for (; i < count; ++i) rest += term.template operator()<T>(i);", ""),
    Mutant(CHANNEL_SUM, "total += sum_terms<T>", "total = sum_terms<T>"),
    Mutant(CHANNEL_SUM, "total += totals[b * channels_ + c];", "total = totals[b * channels_ + c];", NORM_TESTS),
    Mutant(CHANNEL_SUM, "c < channels.end; ++c) sums[c] = 0;", "c < channels.end - 1; ++c) sums[c] = 0;"),
    # winograd: the turned filters, the padding around a patch and after the prologue, the residual, chunks of a sum
    Mutant(WINOGRAD, "filter + (taps - 1) * lanes<T>, -lanes<T>", "filter, lanes<T>", WINOGRAD_TESTS),
    Mutant(WINOGRAD_BLOCKS, "zero_frame(patch, all, inside);", "", WINOGRAD_TESTS),
    Mutant(
        WINOGRAD_BLOCKS,
        "for (int64_t row = inside.top; row < inside.bottom; ++row)",
        "for (int64_t row = all.top; row < all.bottom; ++row)",
        WINOGRAD_TESTS,
    ),
    Mutant(
        WINOGRAD_IMAGE,
        "if (residual) v[i] += load<T>(residual + i * residual_channel);",
        "if (residual) v[i] += load<T>(residual);",
        WINOGRAD_TESTS,
    ),
    Mutant(WINOGRAD_SUMS, "add || i > 0", "add", WINOGRAD_TESTS),
    # winograd with stride: taps that do not exist, the rows that a phase begins with, the tile before the image, the
    # shared filter elements
    Mutant(WINOGRAD, "exists = y < from.height && x < from.width", "exists = y < from.height", STRIDED_TESTS),
    Mutant(PHASES, "larger(all.top, divide_up(top, rows))", "larger(all.top, top / rows)", STRIDED_TESTS),
    Mutant(WINOGRAD, "row >= p_.before_rows && ", "", STRIDED_TESTS + " -k windows"),
    Mutant(WINOGRAD, "smaller(plane % tile_.a, last)", "plane % tile_.a", STRIDED_TESTS),
    # ... and the weight that run() transforms, some source channels at a time
    Mutant(WINOGRAD, "sources.begin > 0,", "false,", f"{WINOGRAD_TESTS}::test_plain_weights"),
    Mutant(
        WINOGRAD,
        "plane * tiles_plane() + sources.begin * block.size()",
        "plane * tiles_plane() + sources.begin",
        f"{WINOGRAD_TESTS}::test_plain_weights",
    ),
    # CUDA kernels by host execution: what is left over, the edge of a tile, waits, parts of k, the transposed problem
    Mutant(CUDA_RELU, "if (i < count) out[i]", "if (i + 1 < count) out[i]", CUDA_RELU_TESTS),
    Mutant(CUDA_RELU, "return !(to_accumulator(y) <= 0);", "return !(to_accumulator(y) < 0);", CUDA_RELU_TESTS),
    Mutant(CUDA_RELU, "<< (place + i)", "<< (place + N - 1 - i)", CUDA_RELU_TESTS),
    Mutant(CUDA_RELU, "lanes < 8 / N; lanes *= 2) bits |=", "lanes < 4 / N; lanes *= 2) bits |=", CUDA_RELU_TESTS),
    Mutant(CUDA_RELU, "mask[first / 8] >> (first % 8)", "mask[first / 8] >> (first % N)", CUDA_RELU_TESTS),
    Mutant(CUDA_TILES, "k + k_ < depth ? within : 0", "within", CUDA_GEMM_TESTS),
    Mutant(CUDA_TILES, "from_ += source_.advance;", "from_ += source_.k_stride;", CUDA_GEMM_TESTS),
    Mutant(CUDA_PIPELINE, "async_copy_wait<0>();", "async_copy_wait<1>();", CUDA_GEMM_TESTS),
    Mutant(CUDA_PIPELINE, "        __syncthreads();\n        fetch(stage", "        fetch(stage", CUDA_GEMM_TESTS),
    Mutant(CUDA_WARPS, "for (int part = 1; part < count;", "for (int part = 2; part < count;", CUDA_GEMM_TESTS),
    Mutant("csrc/cuda/gemm.h", "within % height) * rows", "within % kStrip) * rows", CUDA_GEMM_TESTS),
    Mutant("csrc/cuda/gemm.h", "std::swap(epilogue.bias_row, epilogue.bias_column);", "", CUDA_GEMM_TESTS),
    # pooling: rows that windows share, the first window of an element, divisors at the edge, ties, rows of a thread
    Mutant(CUDA_POOL, "if (j >= h[r].begin && j < h[r].end) folds[r]", "folds[r]", CUDA_POOL_TESTS),
    Mutant(CUDA_POOL, "static_cast<int>(by_stride.quotient(beyond)) + 1;", "0;", CUDA_POOL_TESTS),
    Mutant(CUDA_POOL, "return min(filter, size + padding - begin);", "return filter;", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/max_pool.cu", "value > best[v] ||", "value >= best[v] ||", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/max_pool.cu", "&& name < where[0]", "&& name > where[0]", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/max_pool.cu", "? r * g.h.stride * g.w.filter : 0", "? r * g.w.filter : 0", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/max_pool.cu", "rows[r] = d < 0 || h < 0 ? kNone", "rows[r] = d < 0 ? kNone", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/pool.h", "number < filter && number * dilation == distance", "number < filter", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/pool.h", "        row = slice;\n", "", CUDA_POOL_TESTS),
    Mutant(
        "csrc/cuda/max_pool.cu",
        "axis.covering(min(first + count, axis.size) - 1).end",
        "axis.covering(first).end",
        CUDA_POOL_TESTS,
    ),
    Mutant("csrc/cuda/division.h", "(__umulhi(n, magic_) + n)", "__umulhi(n, magic_)", CUDA_POOL_TESTS),
    # rows in vectors: the end of a row, the windows on the left, names of the windows of a thread, shares at the edge
    Mutant(CUDA_POOL_ROWS, "position < 0 || position + V > size", "position < 0", CUDA_POOL_TESTS),
    Mutant(CUDA_POOL_ROWS, "first = -((W::filter - 1 - W::padding) / W::stride)", "first = 0", CUDA_POOL_TESTS),
    Mutant(CUDA_POOL_ROWS, "if (v < count) to[v] = values[v];", "to[v] = values[v];", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/max_pool.cu", ".where[v] + v * next)", ".where[v])", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/max_pool.cu", "folds[0].where[v] += g.w.before(at.w + v);", ";", CUDA_POOL_TESTS),
    Mutant("csrc/cuda/avg_pool.cu", "divisor.along<A>(g.w, window + k);", "W::filter;", CUDA_POOL_TESTS),
    # offsets in 32 bits
    Mutant("csrc/cuda/norm.h", "return image * n +", "return static_cast<int>(image * n) +", CUDA_FAR_TESTS),
    Mutant(
        "csrc/cuda/avg_pool.cu", "<V>(g, x + at.n * g.input.n +", "<V>(g, x + int(at.n * g.input.n) +", CUDA_FAR_TESTS
    ),
    Mutant(
        "csrc/cuda/gemm.h",
        "strides.batch + row * strides.row +",
        "strides.batch + int(row * strides.row) +",
        CUDA_FAR_TESTS,
    ),
    Mutant("csrc/cuda/conv_gather.h", "{n * s.n + offset_of(s, sd", "{int(n * s.n) + offset_of(s, sd", CUDA_FAR_TESTS),
    # norms and transposes: barriers of a tree, the last chunk, relu's mask, mirrored windows, rows as columns
    Mutant(CUDA_NORM, "        __syncthreads();\n    }\n    if", "    }\n    if", CUDA_NORM_TESTS),
    Mutant(CUDA_NORM, "i < chunks; i +=", "i + 1 < chunks; i +=", CUDA_NORM_TESTS),
    Mutant("csrc/cuda/batch_norm.cu", "if (y.of[v] <= 0)", "if (y.of[v] < 0)", CUDA_NORM_TESTS),
    Mutant(
        "csrc/cuda/local_response_norm.cu",
        "for_rows(tile.first_channel - tiles.after,",
        "for_rows(tile.first_channel - tiles.before,",
        CUDA_NORM_TESTS,
    ),
    Mutant("csrc/cuda/transpose.cu", "= tile[x][y + i]", "= tile[y + i][x]", "tests/cuda/test_cases.py"),
    Mutant(
        "csrc/cuda/device/vector.h",
        "return reinterpret_cast<const Vector<T, N>*>(address);",
        "return reinterpret_cast<const Vector<T, N>*>(address) + (N == 8);",
        "tests/cuda/test_cases.py",
    ),
    Mutant(
        "csrc/cuda/device/warp.h",
        "bits = Width / 2; bits > 0; bits /= 2) value +=",
        "bits = Width / 2; bits > 1; bits /= 2) value +=",
        "tests/cuda/test_cases.py",
    ),
    Mutant("csrc/cuda/division.h", "divisor > 0 ? divisor : 1", "divisor", CUDA_POOL_TESTS),
    # host execution: poison, a collective's partners, copies that wait, the order of threads
    Mutant("csrc/simt/shared_memory.cpp", "fill(variable, poison);", "", SIMT_TESTS),
    Mutant("csrc/simt/shared_memory.cpp", "        fill(upper_canary(), canary);\n", "", SIMT_TESTS),
    Mutant("csrc/simt/collective.cpp", "(warp.waiting & wait.mask) != wait.mask", "warp.waiting == 0", SIMT_TESTS),
    Mutant("csrc/simt/async_copy.cpp", "if (!execution.configuration.lazy) return", "return", SIMT_TESTS),
    # CUDA convolution: phases, barriers, the last rows, splits, edges, the tree of a block, sums over the pieces
    Mutant(
        CUDA_CONV_GATHER,
        "while (axis.filter_step * dilation % stride != 0) ++axis.filter_step;",
        "axis.filter_step = stride;",
        CUDA_CONV_TESTS,
    ),
    Mutant(CUDA_CONV_TILE, "if (left > Shape::depth) fetch", "if (left > 2 * Shape::depth) fetch", CUDA_CONV_TESTS),
    Mutant(CUDA_CONV_TILE, "__syncthreads();  // this pair and", "// this pair and", CUDA_CONV_TESTS),
    Mutant(CUDA_CONV_TILE, "first = block.part * p.split_depth", "first = 0 * p.split_depth", CUDA_CONV_TESTS),
    Mutant(CUDA_CONV_TILE, "kNoLine && c < p.columns;", "kNoLine;", CUDA_CONV_TESTS),
    Mutant(CUDA_DIRECT, "half >= p.lanes; half /= 2", "half > p.lanes; half /= 2", CUDA_CONV_TESTS),
    Mutant(CUDA_DIRECT_SHARED, "if (v < count) out[", "out[", CUDA_CONV_TESTS),
    # im2col and fft in 16 bits: the copy of the output, one rounding at the end
    Mutant(CUDA_IM2COL, "const bool k_fastest = y.c == 1;", "const bool k_fastest = true;", CUDA_IM2COL_16_TESTS),
    Mutant(
        CUDA_FFT_TILE,
        "A value = ((row & 1) ? pair.im : pair.re) * finish.scale;",
        "A value = to_accumulator(from_accumulator<T>(((row & 1) ? pair.im : pair.re) * finish.scale));",
        CUDA_FFT_16_TESTS,
    ),
    # stems: pieces of the filters, columns by their remainder, the padding, channels beyond the last
    Mutant(CUDA_STEM, "if (first > 0) __syncthreads();", "", CUDA_CONV_TESTS),
    Mutant(CUDA_STEM, "fw * g.dilation.w;", "fw;", CUDA_CONV_TESTS),
    Mutant(CUDA_STEM, "static_cast<unsigned>(h) < static_cast<unsigned>(size.h) &&", "", CUDA_CONV_TESTS),
    Mutant(CUDA_STEM, "count = min(Q, p.channels - own);", "count = Q;", CUDA_CONV_TESTS),
    Mutant(CUDA_IM2COL, "g.beta = first ? 0 : 1;", "g.beta = 0;", CUDA_CONV_TESTS),
    Mutant(CUDA_IM2COL, "from % stride == 0 && from / stride < out", "from / stride < out", CUDA_CONV_TESTS),
    # CUDA Winograd: the end of k and the steps of the product, the padding, the turned filters, overflows, the sums
    Mutant(CUDA_PRODUCT, "k + at < end ? rows - row : 0", "rows - row", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_PRODUCT, "row < rows ? end - k - at : 0", "row < rows ? V : 0", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_PRODUCT, "            __syncthreads();\n        }", "        }", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_WINOGRAD_TILE, "top + i >= 0 && top + i < image.height", "top + i < image.height", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_WINOGRAD_TILE, "std::min(source.h, top + size.h + kTaps - 1)", "source.h", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_WINOGRAD, "filters.turned ? kTaps - 1 - i : i", "i", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_WINOGRAD, "value += value * A(0) + bias;", "value += bias;", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_WINOGRAD_SUMS, "begin > 0,", "false,", CUDA_WINOGRAD_TESTS),
    Mutant(CUDA_WINOGRAD_SUMS, "split < s.splits;", "split < 1;", CUDA_WINOGRAD_TESTS),
    # CUDA FFT: stages, the odd rows' places, a conjugate, what the tile leaves out, strides, infinities, sums of blocks
    Mutant(CUDA_FFT, "    }\n    __syncthreads();\n}", "    }\n}", CUDA_FFT_TESTS),
    Mutant(CUDA_FFT, "z[q] * conjugate(roots", "z[q] * (roots", CUDA_FFT_TESTS),
    Mutant(CUDA_FFT_TILE, "f == width / 2 ? width + 1 :", "", CUDA_FFT_TESTS),
    Mutant(CUDA_FFT_TILE, "value += value * A(0);", "", CUDA_FFT_TESTS),
    Mutant(CUDA_FFT_TILE, "element * step == at && element >= low", "element >= low", CUDA_FFT_TESTS),
    Mutant(CUDA_FFT_AXES, "axis.padding - (axis.extent - 1), results()", "axis.padding, results()", CUDA_FFT_TESTS),
    Mutant(
        CUDA_FFT_AXES,
        "axis.stride, axis.out_begin, axis.out_end, 0, m}",
        "axis.stride, 0, axis.out, 0, m}",
        CUDA_FFT_TESTS,
    ),
    Mutant(CUDA_FFT_CONV, "tiles, gradients, sums, begin > 0)", "tiles, gradients, sums, false)", CUDA_FFT_TESTS),
    # Numba: rows left over, the tap's channel, the stride of a gradient, NaN, the mean's lost digits, the mask of relu
    _numba("product.py", "first = whole_depth if i < whole_rows else 0", "first = whole_depth", "product"),
    _numba("row_products.py", "s23 += u2 * v3", "s23 += u2 * v2", "row_products"),
    _numba("row_products.py", "min(STEP, end - j)", "1", "row_products"),
    _numba("conv_gather.py", "elif count < g.width:", "elif count > g.width:", "grad_weight"),
    _numba("conv_gather.py", "to + start * position_step", "to + start", "in_rows"),
    _numba(
        "conv_im2col.py",
        "term_step, position_step, panel_elements",
        "position_step, term_step, panel_elements",
        "in_rows",
    ),
    _numba(
        "conv_im2col.py",
        "position_step, term_step, panel_elements",
        "term_step, position_step, panel_elements",
        "grad_weight_few",
    ),
    _numba("conv_plans.py", "self._at_weight.term == 1", "True", "terms_apart"),
    _numba("conv_plans.py", 'p.weight.name == "nchw"', "True", "terms_mixed"),
    _numba("conv_gather.py", "start += -(origin + start * step) % every", "start += 0", "strided"),
    _numba("conv_gather.py", "if met < count:", "if met == 0:", "im2col"),
    _numba("conv_phases.py", "-(dilation // common)", "-dilation", "phases"),
    _numba("conv_phases.py", "residual += self._residual.offset * self._itemsize", "pass", "phases"),
    _numba("conv_im2col.py", "from_ = group * at_group + row", "from_ = row", "phases"),
    _numba("max_pool.py", "value > best or value != value", "value > best", "max_pool"),
    _numba("max_pool.py", "g.dilation_w * g.input_w])", "g.input_w])", "max_pool_offsets"),
    _numba("max_pool.py", "value > best or value != value", "value >= best or value != value", "max_pool"),
    _numba("batch_norm_gradient.py", "output.size > 0 and output[from_] <= 0", "output[from_] < 0", "batch_norm"),
    _numba("batch_norm.py", "variance * count / (count - 1.0)", "variance", "moments"),
    _numba("plans.py", "any(step != g.w * of_w for step, of_w in strides)", "not strides", "moments"),
    _numba("conv_direct.py", "(group * g.channels + c)", "c", "depthwise"),
    _numba("conv_im2col.py", "bias[channel + i]", "bias[channel]", "im2col"),
    _numba("gemm.py", "+ p * columns + j] = b[at + p * row + j", "+ p * columns + j] = b[at + p * row + p", "product"),
    _numba("avg_pool.py", "size + 2 * padding", "size + padding", "avg_pool"),
    _numba("local_response_norm.py", "c - (window - 1) // 2)", "c - window // 2)", "local_response_norm"),
    _numba("channel_sum.py", "            add_parts(totals, parts)\n", "", "channel_sum"),
    _numba("channels.py", "        parts[i] = 0\n", "", "channel_sum"),
    _numba("relu.py", "y[i] <= 0", "y[i] < 0", "relu"),
    _numba("avg_pool.py", "rows_follow(g) and w_end", "w_end - w_first > 0 and w_end", "avg_pool_nhwc"),
    _numba("plans.py", "long_rows and self._g.block == 1", "long_rows", "pixels"),
    _numba("pool_windows.py", "if c + 1 < g.c:", "if c < g.c:", "avg_pool"),
    _numba("pool_windows.py", "np.maximum(-(first // dilation), 0)", "0", "avg_pool"),
    _numba("pool_windows.py", "-(-(o + 1) * size // out)", "(o + 1) * size // out", "adaptive"),
    _numba("sharing.py", "items * (before + 1) // threads", "items // threads * (before + 1)", "threads"),
    Mutant(f"{NUMBA}threads.py", "            _exchange(before)\n", "            pass\n", NUMBA_THREADS_TEST),
    Mutant(f"{NUMBA}cuda_relu.py", "if i < x.size:", "if i + 1 < x.size:", NUMBA_CUDA_TESTS),
    Mutant(f"{NUMBA}cuda_max_pool.py", "value > best or", "value >= best or", NUMBA_CUDA_TESTS),
    Mutant(f"{NUMBA}cuda_conv_direct.py", "if j >= 0 and j <", "if j <", NUMBA_CUDA_TESTS),
    Mutant(f"{NUMBA}cuda_gemm_tiled.py", "cuda.syncthreads()\n        for p", "for p", NUMBA_CUDA_TESTS),
    # tensor cores: waits, barriers, a term of 3xTF32, the ends of vectors, parts, taps, channels that fill no vector
    Mutant(CUDA_MMA, "async_copy_wait<kStages - 2>();", "async_copy_wait<kStages - 1>();", CUDA_MMA_GEMM_TESTS),
    Mutant(CUDA_MMA, "arrived(stage);\n        __syncthreads();", "arrived(stage);", CUDA_MMA_GEMM_TESTS),
    Mutant(CUDA_MMA, "b[term == 1][j + k]", "b[0][j + k]", CUDA_MMA_GEMM_TESTS),
    Mutant(
        CUDA_MMA,
        "first[i] = to_tf32(Arithmetic::terms == 2 ?",
        "first[i] = __float_as_uint(Arithmetic::terms == 2 ?",
        CUDA_MMA_GEMM_TESTS,
    ),
    Mutant(CUDA_MMA_GEMM, "columns < 0 ? 0 : columns < N ? columns : N", "columns < 0 ? 0 : N", CUDA_MMA_GEMM_TESTS),
    Mutant(
        CUDA_MMA_GEMM,
        "for (int64_t part = 0;",
        "for (int64_t part = 1;",
        "tests/cuda/test_mma_gemm.py::test_parts_of_k",
    ),
    Mutant(CUDA_MMA_CONV, "min(vector, p.tap_channels - channel)", "vector", CUDA_MMA_CONV_TESTS),
    Mutant(CUDA_MMA_CONV, "count > 0 && inside(line, slice, size)", "count > 0", CUDA_MMA_CONV_TESTS),
    Mutant(CUDA_MMA_CONV, "p.channels && c < line.count", "p.channels", CUDA_MMA_CONV_TESTS),
    # 3xTF32: what tensor cores cut off, the largest numbers
    Mutant(CUDA_MMA, "multiply_add<Operand>(slice[k]", "multiply_add<Operand>(to[k]", CUDA_3XTF32_TESTS),
    Mutant(CUDA_MMA, "fminf(fmaxf(value, -kLargestTf32), kLargestTf32)", "value", CUDA_3XTF32_TESTS),
    # prologues: padding that they change, channels of another group or place in a vector
    Mutant(CUDA_MMA_CONV, "!inside(shared->lines[row].point, slice.point, size)", "false", CUDA_MMA_PROLOGUES),
    Mutant(CUDA_MMA_CONV, "(block.group) * p.tap_channels + slice.channel", "(slice.channel)", CUDA_MMA_PROLOGUES),
    Mutant(CUDA_MMA_CONV, "p.prologue.of(channel + e)", "p.prologue.of(channel)", CUDA_MMA_PROLOGUES),
    Mutant(CUDA_CONV_TILE, "!inside(lines[line].point, rows[row].point, size)", "false", CUDA_PROLOGUES),
    Mutant(CUDA_DIRECT, "if (from[i]) x[i][v] = to", "x[i][v] = to", CUDA_PROLOGUES),
    Mutant(CUDA_MMA_CONV, "first = block.part * p.part_depth", "first = 0 * p.part_depth", CUDA_MMA_PARTS),
    Mutant(CUDA_MMA_PLAN, "(conv_.groups == 1 || group % N == 0)", "true", CUDA_MMA_CONV_TESTS),
    # Triton: the end of a sum, the stride of a gradient, parts, equal values, merged squares, the end of a part
    _triton("gemm.py", "depth[:, None] < k - first", "depth[:, None] <= k - first", "gemm"),
    _triton("gather.py", "(value % EVERY == 0) & ", "", "conv_strided"),
    _triton("conv_implicit.py", "first = part * part_positions", "first = 0 * part", "conv_parts"),
    _triton("max_pool.py", "inside = inside & is_element", "inside = inside", "max_pool_offsets_gradient"),
    _triton("max_pool.py", "(td * taps_h + th) * taps_w + tw", "(td * taps_h + th) * taps_h + tw", "max_pool_offsets"),
    _triton("max_pool.py", "(value > best) |", "(value >= best) |", "max_pool"),
    _triton("batch_norm.py", "distance * distance * count * share", "distance * distance * share", "batch_norm_parts"),
    _triton("windows.py", "size + out - 1) // out", "size) // out", "adaptive"),
    _triton(
        "local_response_norm.py", "other = c + (i - AFTER)", "other = c + (i - BEFORE)", "local_response_norm_gradient"
    ),
    Mutant(
        "kernels/triton/local_response_norm.py",
        "tl.where(odd, -size, size)",
        "size",
        "tests/triton/test_kernels.py::test_powers_of_what_is_not_positive",
    ),
    _triton("conv_fft.py", "real * cosines + imaginary * sines", "real * cosines - imaginary * sines", "conv_fft_line"),
    _triton("conv_fft.py", "(row == 0) | (row == N1 // 2)", "row == 0", "conv_fft_strided"),
    _triton("conv_fft_plans.py", '"ADD": first > 0', '"ADD": first > 9', "conv_fft_tiles"),
    # the filters of a group, the images of a step, 16-bit sums, the last tile, windows that end in the padding, the
    # gradient at 0, the first part, roundings, the last rows of tiles, the channel of a bias
    _triton("conv_direct.py", "channel // rows * weight_group + channel % rows", "channel % rows", "conv_strided"),
    _triton("conv_im2col.py", "(n + first_image) * source_n", "n * source_n", "conv_images"),
    _triton(
        "conv_plans.py",
        "g, sums = self.geometry, sum_dtype(p.dtype)",
        "g, sums = self.geometry, p.dtype",
        "conv_images",
    ),
    _triton(
        "gemm_persistent.py",
        "row_tiles * column_tiles, PROGRAMS",
        "row_tiles * column_tiles - 1, PROGRAMS",
        "persistent",
    ),
    _triton(
        "avg_pool.py", "tl.minimum(end, size + PADDING) - first", "tl.minimum(end, size) - first", "avg_pool_gradient"
    ),
    _triton("gemm_persistent.py", "out.store([row, column]", "out.store([column, row]", "persistent"),
    _triton("gemm_persistent.py", "column = (first_column + ", "column = (0 * first_column + ", "persistent"),
    _triton("plans.py", "self._described if fits", "self._described if True", "persistent"),
    _triton("relu.py", "value <= 0", "value < 0", "relu_gradient"),
    _triton("channel_sum.py", "range(0, count)", "range(1, count)", "channel_sum"),
    _triton("language.py", "0x7FFF + ((bits >> 16) & 1)", "0x8000", "gemm_rounded"),
    _triton("language.py", "bitcast=True) + 0x1000)", "bitcast=True))", "gemm"),
    _triton("language.py", "first + inside % height", "first + inside % GROUP", "gemm"),
    _triton("conv_epilogue.py", "bias + channel, mask", "bias + 0 * channel, mask", "conv"),
    # another tile than the rule's: the programs that cover the matrix, the end of a part; shared memory for all stages
    _triton("plans.py", "p.batch * tile.covering", "p.batch * tile_of(product_of(p, precision)).covering", "gemm"),
    _triton(
        "conv_plans.py",
        "g.groups * tile.covering(g.positions",
        "g.groups * tile_of(implicit_product(p, precision)).covering(g.positions",
        "conv",
    ),
    Mutant("kernels/triton/tiles.py", "tile.stages * tile.operands", "tile.operands", "tests/triton/test_tiles.py"),
    Mutant(
        "kernels/triton/windows.py",
        "tl.program_id(0).to(tl.int64) * BLOCK",
        "tl.program_id(0) * BLOCK",
        "tests/triton/test_addresses.py::test_elements_beyond_two_to_the_31 -m full",
    ),
    Mutant(
        "kernels/triton/channels.py", ".to(tl.int64)[:, None]", "[:, None]", "tests/triton/test_addresses.py -m full"
    ),
    Mutant("kernels/triton/launch.py", "address % 16 == 0 else 2", "address else 2", "tests/triton/test_launch.py"),
    Mutant("kernels/triton/launch.py", "(device, *constants, ", "(device, ", "tests/triton/test_launch.py"),
    Mutant("kernels/triton/launch.py", "0 if address == _EMPTY else address", "address", "tests/triton/test_launch.py"),
    # Hopper: phases, stages given back early, results overwritten while they are stored, the fence, windows, parts
    Mutant(WGMMA_RING, "at.parity ^ 1);", "at.parity);", WGMMA_GEMM_TESTS),
    Mutant(WGMMA_RING, "wait_for_products<1>(sums);\n        if (step > 0", "if (step > 0", WGMMA_GEMM_TESTS),
    Mutant(WGMMA_GEMM, "store_wait_read<buffers - 1>();", "store_wait_read<buffers>();", WGMMA_GEMM_TESTS),
    Mutant(WGMMA_GEMM, "        fence_async_copies();\n", "", WGMMA_GEMM_TESTS),
    Mutant(WGMMA_WINDOWS, "w.shift + tap.s * w.by_tap", "tap.s * w.by_tap", WGMMA_CONV_TESTS),
    Mutant(WGMMA_WINDOWS, "tap.r = 0;", "tap.r = 1;", WGMMA_CONV_TESTS),
    Mutant(WGMMA_GEMM, "results.row(tile, row + 8)", "results.row(tile, row)", WGMMA_RESIDUAL_TEST),
    Mutant(WGMMA_PHASES, "by_column(gather.w.filter_step)", "by_column(1)", WGMMA_PHASE_TESTS),
    Mutant(WGMMA_PHASES, "index - of.first_tile", "index", WGMMA_PHASE_TESTS),
    Mutant(WGMMA_PHASES, " + gather.w.first * s.w;", ";", WGMMA_PHASE_TESTS),
    Mutant(WGMMA_PHASES, "phase.first_row + at.y", "at.y", WGMMA_PHASE_RESIDUAL_TEST),
    Mutant(WGMMA_GATHER, "    fence_async_copies();\n", "", WGMMA_GATHERED_TESTS),
    Mutant(WGMMA_GATHER, "(Boxes ? 1 : 0)", "0", WGMMA_GATHERED_TESTS),
    Mutant(WGMMA_GATHER, "(k + e) * step", "k + e", WGMMA_GATHERED_TESTS),
    Mutant(WGMMA_GATHER, "k + e < valid ?", "k + e <= valid ?", WGMMA_GATHERED_TESTS),
    Mutant(WGMMA_GATHER, "to_tf32_even(vectors[i][e])", "__float_as_uint(vectors[i][e])", WGMMA_STRIDED_TESTS),
    Mutant(WGMMA_GATHERED, "matrix.batch_stride == 0 ? 0 : batch", "batch", WGMMA_STRIDED_TESTS),
    Mutant(WGMMA_OPERANDS, "all_aligned(16, m.data) && ", "", WGMMA_STRIDED_TESTS),
    # the major of k = 1, results of one column, where copies are and how far apart, what is gathered without a copy
    Mutant(
        WGMMA_OPERANDS,
        "!in_boxes<T>(m, Major::k) && in_boxes<T>(m, Major::line)",
        "m.line_stride == 1 && m.k_stride != 1",
        WGMMA_ONE_TESTS,
    ),
    Mutant(WGMMA_PLAN, "(p.out.column != 1 || p.n == 1)", "p.out.column != 1", WGMMA_ONE_TESTS),
    Mutant(WGMMA_COPIES, "m.batch_stride == 0 ? 0 : m.lines * pitch", "m.lines * pitch", WGMMA_COPY_TESTS),
    Mutant(WGMMA_COPIES, "    to += bytes_in_workspace(m);\n", "", WGMMA_COPY_TESTS),
    Mutant(WGMMA_COPIES, "!copies.a && !in_boxes<T>(a, Major::k)", "!a_in_boxes", WGMMA_WORTH_TEST),
    Mutant("csrc/cuda/padded_copy.cu", "+ row * c.from_row", "+ row * c.pitch()", WGMMA_COPY_TESTS),
    # tiles that are asked for
    Mutant(WGMMA_PLAN, "bool wide = tile == kWideTile;", "bool wide = false;", GEMM_TILE_TESTS),
    Mutant(MMA_OFFERED, "if (name == name_of(tile)) return tile;", "(void)tile;", GEMM_TILE_TESTS),
    Mutant(MMA_OFFERED, "one != other && small", "small", CONV_TILE_TESTS),
    Mutant(MMA_OFFERED, "bool needed = tile != rule;", "bool needed = true;", CONV_TILE_TESTS),
    Mutant("csrc/cuda/conv_wgmma.cu", "tile == name_of(row.columns)", "tile.empty()", CONV_TILE_TESTS),
    Mutant("csrc/cuda/conv_wgmma_grad_weight.cu", "tile == kWideTile", "true", CONV_TILE_TESTS),
    Mutant(WGMMA_GATHERED, "first_column + first + column >= g.n", "column >= g.n", WGMMA_GATHERED_TESTS),
    Mutant(WGMMA_FILTER_GATHER, "        sync_warp();\n", "", WGMMA_FILTER_GATHER_TESTS),
    Mutant(WGMMA_FILTER_GATHER, "] + dy)", "])", WGMMA_FILTER_GATHER_TESTS),
    Mutant(WGMMA_FILTER_GATHER, "] + dx) <", "] + dx) <=", WGMMA_FILTER_GATHER_TESTS),
    Mutant(
        WGMMA_FILTER_GATHER, "exists ? at.y : -(1 << 30)", "at.y", f"{WGMMA_FILTER_GATHER_TESTS}_wherever_tensors_lie"
    ),
    Mutant(WGMMA_FILTERS, "int64_t part = 0;", "int64_t part = 1;", WGMMA_FILTER_TESTS),
    # races: of all lanes and of all warps, which write the same
    _race("avg_pool.cu", "if (lane_index() > 0) return;", "", "adaptive_avg_pool2d.forward"),
    _race(
        "local_response_norm.cu",
        "int i = warp_index(); i < outer; i += kNormThreads / warp_size",
        "int i = 0; i < outer; ++i",
        "local_response_norm.forward and l4",
    ),
    _race(
        "batch_norm.cu",
        "if (lane_index() > 0) return;\n    const bool training",
        "const bool training",
        "batch_norm.grad_input and h47w45",
    ),
    _race(
        "fft.h",
        "i = static_cast<int>(threadIdx.x); i < 1 << bits; i += kThreads",
        "i = 0; i < 1 << bits; ++i",
        "conv1d.forward and w50",
    ),
]
