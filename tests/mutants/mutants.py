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
POOL, NORM, BATCH_NORM = "csrc/cpu/pool.h", "csrc/cpu/norm.h", "csrc/cpu/batch_norm.cpp"
LRN, CHANNEL_SUM = "csrc/cpu/local_response_norm.cpp", "csrc/cpu/channel_sum.cpp"
GATHER, OPERANDS, IM2COL = "csrc/cpu/conv_gather.h", "csrc/cpu/conv_operands.h", "csrc/cpu/conv_im2col.cpp"
PRODUCT, PANELS = "csrc/cpu/gemm_product.h", "csrc/cpu/gemm_panels.h"
TAP_TILE, ROW_VECTORS = "csrc/cpu/tap_tile.h", "csrc/cpu/row_vectors.h"
CHANNELS, PADDED = "csrc/cpu/depthwise_channels.h", "csrc/cpu/padded_planes.h"
PLANES, THIN_WEIGHT = "csrc/cpu/depthwise_planes.h", "csrc/cpu/depthwise_grad_weight.h"
POOL_WINDOWS, PLANE_SUMS = "csrc/cpu/pool_windows.h", "csrc/cpu/plane_sums.h"
MOVES, TILE = "csrc/cpu/vector_moves.h", "csrc/cpu/gemm_microkernel.cpp"
PACKED, THIN = "csrc/cpu/gemm_packed.cpp", "csrc/cpu/gemm_thin.h"

MUTANTS = [
    # relu: the tail, the mask, NaN
    Mutant(RELU, "i < count; ++i) y[i] = relu<T>(x[i])", "i + 1 < count; ++i) y[i] = relu<T>(x[i])"),
    Mutant(RELU, "y[i] <= T(0) ? T(0) : grad_output[i]", "y[i] < T(0) ? T(0) : grad_output[i]"),
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
    Mutant(IM2COL, "pw = g.w.first + w * g.w.step;", "pw = w * g.w.step;"),
    Mutant(
        IM2COL,
        "for (int thread = 1; thread < team; ++thread) sum +=",
        "for (int thread = 1; thread < team - 1; ++thread) sum +=",
    ),
    Mutant(IM2COL, "block > blocks.begin, false);", "block >= blocks.begin, false);"),  # stale workspace
    # depthwise: taps of a tile, channels beyond the last vector, what an earlier plane left in the padding, columns that
    # overlapping vectors count twice
    Mutant(TAP_TILE, "sum[(i - b) / U] += value * taps[b];", "sum[(i - b) / U] += value * taps[0];"),
    Mutant(CHANNELS, "smaller(v * lanes, channels - lanes)", "v * lanes"),
    Mutant(CHANNELS, "sum[p] += bias;", "sum[p] -= bias;"),
    Mutant(PADDED, "strip == positions && d.size == 1 && slices() == 1", "strip == positions"),
    Mutant(PLANES, "high[i] = L / 2 + i / 2 + (i % 2 ? L : 0);", "high[i] = i / 2 + (i % 2 ? L : 0);"),
    Mutant(THIN_WEIGHT, "counts[l] = l < skip ? 0 : -1;", "counts[l] = l <= skip ? 0 : -1;"),
    Mutant(THIN_WEIGHT, "sum += load_row<V>(totals + part * total_elements());", ""),
    # GEMM: tiles, depth blocks, epilogue, packing
    Mutant(
        PRODUCT,
        "for (; j < count; ++j) out[j] = add ? out[j] + sums[j] : sums[j];",
        "for (; j < count; ++j) out[j] = sums[j];",
    ),
    Mutant(PRODUCT, "if (residual) v += sink.beta * residual[j];", "if (residual) v += residual[j];"),
    Mutant(PRODUCT, "v += bias ? bias[j] : row_bias;", "v += row_bias;"),
    Mutant(PRODUCT, "block + 1 == p.depth.blocks()", "block == 0"),
    Mutant(
        PANELS,
        "zero_run(to + k * kTileWidth<T> + count, kTileWidth<T> - count);",
        "zero_run(to + k * kTileWidth<T>, count);",
    ),
    Mutant(
        PANELS,
        "to[j * kTileWidth<T> + i] = scratch[i * kScratchStride<T> + j]",
        "to[j * kTileWidth<T> + i] = scratch[i * kScratchStride<T>]",
    ),
    Mutant(MOVES, "if (i < count) store<T>(to + count - lanes<T>, load<T>(from + count - lanes<T>));", ""),
    Mutant(TILE, "rows += Format == RowFormat::k_contiguous ? 1 : Height;", "rows += 1;"),
    Mutant(
        THIN,
        "Range range{begin, smaller(wide_, smaller(begin + mine.end - i, begin + kRange))}",
        "Range range{begin, smaller(wide_, begin + mine.end - i)}",
    ),
    Mutant(THIN, "bias[rows_thin_ ? w : t]", "bias[w]"),
    Mutant(THIN, "rest < depth; ++rest) total +=", "rest + 1 < depth; ++rest) total +="),
    Mutant(PACKED, "part.groups = smaller(end, problem_.batch) - begin;", "part.groups = end - begin;"),
    Mutant(
        "csrc/bindings/cpu.cpp",
        'if (name == "f64") return DType::f64;',
        'if (name == "f64") return DType::f32;',
        "tests/cpu/test_gemm_kernels.py",
    ),
    # pooling: ties, indices, windows, divisors
    Mutant(MAX_POOL, "return value > best || value != value;", "return value >= best || value != value;"),
    Mutant(MAX_POOL, "const I better = (value > best) | (value != value);", "const I better = value > best;"),
    Mutant(MAX_POOL, "(value > best) | (value != value) ? value : best", "value > best ? value : best"),
    Mutant(MAX_POOL, "if (index >= p_.size.count()) return;", "if (index >= p_.size.count() - 1) return;"),
    Mutant(POOL_WINDOWS, "value = Fold::add(value, columns[x - first][v]);", "value = columns[x - first][v];"),
    Mutant(PLANE_SUMS, "odd += load<T>(p + i + step);", "", "tests/ops/test_pool.py"),
    Mutant(
        POOL,
        "if (begin < 0) begin += (-begin + a.dilation - 1) / a.dilation * a.dilation;",
        "if (begin < 0) begin = 0;",
    ),
    Mutant(ROW_VECTORS, "block.template operator()<L>(end - L);", ";"),
    Mutant(AVG_POOL, "a.filter < a.size + a.padding - begin ? a.filter : a.size + a.padding - begin", "a.filter"),
    Mutant(AVG_POOL, "clear_pixels(image, p_.input, p_.size, channels);", ""),
    # normalisation
    Mutant(BATCH_NORM, "a.momentum * moments.squares[i] / (m - 1)", "a.momentum * moments.squares[i] / m"),
    Mutant(BATCH_NORM, "constant[i] = static_cast<T>(sum[i] / m);", "constant[i] = T(0);"),
    Mutant(LRN, "clear_borders(scratch, (p_.window - 1) / 2, width)", "clear_borders(scratch, p_.window / 2, width)"),
    Mutant(NORM, "for (; i < count; ++i) rest += term.template operator()<T>(i);", ""),
    Mutant(CHANNEL_SUM, "total[i] += part[i]", "total[i] = part[i]"),
]
