"""The text of problems round-trips, layouts describe real tensors, and bad text is refused by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pycv.problem import ConvProblem, GemmProblem, Layout, Matrix, PoolProblem, parse

from . import draw
from .seed import properties


@given(st.data())
@properties(200)
def test_text_round_trips(data):
    problem = draw.problem(draw.Strategy(data))
    assert parse(str(problem)) == problem
    assert hash(parse(str(problem))) == hash(problem)


@pytest.mark.parametrize(
    "text",
    [
        "conv2d.forward n8c64h56w56 k64r3s3 p1 f32 nchw cpu",
        "conv2d.grad_weight n1c3h7w9 k4r2s3 o3x4 u2x1 p0x1 d1x2 f64 nhwc>nchw w=nhwc cpu",
        "conv2d.forward n1c20h5w6 k40r3s3 p1 f32 nchw16c>nchw8c/9000 res=nhwc cpu pre=scale+relu bias+residual",
        "conv1d.forward n1c4w10 k4s3 g4 f32 nchw/80 res=nhwc cpu bias+residual+relu",
        "gemm.forward b2m3n4k5 f32 a=col b=row/9/40 out=any/2/8/50 res=row cpu bias+residual",
        "max_pool3d.grad_input n2c3d4h5w6 t2r2s2 u2 f32 nchw cpu indices",
        "max_pool2d.forward n1c2h9w9 r3s3 u2 p1 f32 nhwc cpu offsets",
        "avg_pool2d.forward n1c1h5w5 r3s3 u2 p1 f32 nhwc cpu exclude_pad+divisor3",
        "adaptive_avg_pool2d.forward n1c8h7w7 o1 f32 nhwc/400/8>nchw cpu",
        "batch_norm.forward n4c3h5w5 f32 nchw cpu training",
        "local_response_norm.grad_input n1c9h2w2 l5 f64 nchw cpu",
        "channel_sum.forward n4c3h5w5 f32 nhwc cpu",
        "relu.forward e100 f32 cpu",
        "relu.grad_input e100 bf16 cuda mask",
    ],
)
def test_canonical_text(text):
    assert str(parse(text)) == text


def test_defaults_may_be_left_out_and_written():
    short = parse("conv2d.forward n8c64h56w56 k64r3s3 p1 f32 nchw cpu")
    assert parse("conv2d.forward n8c64h56w56 k64r3s3 o56 u1 p1x1 d1 g1 f32 nchw>nchw w=nchw cpu") == short
    assert parse("conv2d n8c64h56w56 k64r3s3 p1") == short
    assert isinstance(short, ConvProblem) and short.output_size == (56, 56)
    assert short.flops == 2 * 8 * 64 * 56 * 56 * 64 * 9


@pytest.mark.parametrize(
    "text, named",
    [
        ("conv2d.sideways n1c1h3w3 k1r1s1", "sideways"),
        ("conv2d.forward n1c1h3w3 k1r1s1 x7", "x7"),
        ("conv2d.forward n1c1h3w3 k1r1s1 nchw/1/2", "nchw/1/2"),
        ("conv2d.forward n1c1h3w3 k1r1s1 nhwc/1", "nhwc/1"),
        ("conv2d.forward n1c1h3w3 k1r1s1 p1x2x3", "padding"),
        ("gemm.forward m3n4k5 a=diagonal", "diagonal"),
        ("gemm.forward m3n4k5 a=row/3", "row/3"),
        ("conv2d.forward k1r1s1", "n"),
        ("conv2d.forward n1c1h3w3", "filter"),
        ("conv2d.forward n1c1h3w3 k1r1s1 nchw16c/1/2", "nchw16c/BATCH"),
        ("conv2d.forward n1c1h3w3 k1r1s1 pre=bias", "prologue 'bias'"),
        ("", "op ''"),
        ("frobnicate", "frobnicate"),
        ("softmax.forward n1c1h3w3", "softmax"),
        ("conv2d.forward e100", "e100: elements are what relu has"),
        ("relu.forward n1c3h4w4", "'e' is missing"),
        ("conv2d n1c1h8w8 k1r3", "filter of 1 sizes: expected 2"),
        ("max_pool2d n1c1h8w8 t3r3s3", "filter of 3 sizes: expected 2"),
        ("conv2d n1c1h8w8 k1", "filter of 0 sizes: expected 2"),
        ("adaptive_avg_pool2d n1c1h8w8", "'o' is missing"),
    ],
)
def test_bad_text_is_refused_by_name(text, named):
    with pytest.raises(ValueError, match=named):
        parse(text)


SHAPES = st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 4), st.integers(1, 4))


def addresses(shape, strides):
    """What a tensor addresses: the offset of every element, in index order."""
    return torch.arange(4096).as_strided(shape, strides).flatten().tolist()


@given(st.data())
@properties(300)
def test_layout_of_tensors_addresses_the_same_memory(data):
    shape = data.draw(SHAPES)
    x = torch.empty(shape)
    how = data.draw(st.sampled_from(("nchw", "nhwc", "slice", "nhwc slice", "batch", "expand", "permute", "step")))
    n, c, h, w = shape
    if how == "nhwc":
        x = x.contiguous(memory_format=torch.channels_last)
    elif how == "slice":
        x = torch.empty(n, c + 3, h, w)[:, 2 : 2 + c]
    elif how == "nhwc slice":
        x = torch.empty(n, c + 3, h, w).contiguous(memory_format=torch.channels_last)[:, 2 : 2 + c]
    elif how == "batch":
        x = torch.empty(2 * n, c, h, w)[::2]
    elif how == "expand":
        x = torch.empty(1, c, h, w).expand(shape)
    elif how == "permute":
        x = torch.empty(w, h, c, n).permute(3, 2, 1, 0)
    elif how == "step":
        x = torch.empty(n, c, h, 2 * w)[..., ::2]
    layout = Layout.of(tuple(x.shape), x.stride())
    if how in ("nchw", "nhwc", "slice", "nhwc slice", "batch", "expand"):
        assert layout is not None
    if layout is not None:
        assert addresses(shape, layout.strides(c, (h, w))) == addresses(shape, x.stride())
        assert Layout.parse(str(layout)) == layout


def test_blocked_layouts_keep_blocks_of_channels_side_by_side():
    layout, (n, c, h, w) = Layout("nchw8c"), (2, 19, 3, 5)
    memory = torch.arange(n * 24 * h * w).reshape(n, 3, h, w, 8)
    batch, block, row, column = layout.strides(c, (h, w))
    for i, j, y, x in ((0, 0, 0, 0), (1, 18, 2, 4), (1, 7, 1, 0), (0, 8, 0, 3)):
        at = i * batch + j // layout.block * block + j % layout.block + y * row + x * column
        assert memory.flatten()[at] == memory[i, j // 8, y, x, j % 8]


def test_equal_memory_gives_equal_layouts():
    """One channel, or one pixel: nchw and nhwc are the same memory, and nchw it is."""
    for shape in ((2, 1, 3, 3), (2, 5, 1, 1), (1, 1, 1, 1)):
        x = torch.empty(shape)
        last = x.contiguous(memory_format=torch.channels_last)
        assert Layout.of(shape, x.stride()) == Layout.of(shape, last.stride()) == Layout()


@given(st.data())
@properties(300)
def test_matrix_of_tensors_addresses_the_same_memory(data):
    b, rows, columns = data.draw(st.tuples(st.integers(1, 3), st.integers(0, 5), st.integers(0, 5)))
    x = {
        "dense": lambda: torch.empty(b, rows, columns),
        "transposed": lambda: torch.empty(b, columns, rows).mT,
        "slice": lambda: torch.empty(b, rows + 2, columns + 3)[:, 1 : 1 + rows, 2 : 2 + columns],
        "step": lambda: torch.empty(b, 2 * rows, 3 * columns)[:, ::2, ::3],
        "expanded": lambda: torch.empty(1, rows, columns).expand(b, rows, columns),
        "row": lambda: torch.empty(1, 1, columns).expand(b, rows, columns),
        "column": lambda: torch.empty(b, rows, 1).expand(b, rows, columns),
        "batch last": lambda: torch.empty(rows, columns, b).permute(2, 0, 1),
    }[data.draw(st.sampled_from(("dense", "transposed", "slice", "step", "expanded", "row", "column", "batch last")))]()
    matrix = Matrix.of(tuple(x.shape), x.stride())
    assert addresses(x.shape, matrix.strides(rows, columns)) == addresses(x.shape, x.stride())
    assert Matrix.parse(str(matrix)) == matrix


def test_problems_count_their_work():
    gemm = parse("gemm.forward m3n4k5 f64")
    assert isinstance(gemm, GemmProblem) and gemm.flops == 120 and gemm.bytes == 8 * (15 + 20 + 12)
    pool = parse("max_pool2d.forward n1c2h4w4 r2s2 u2 indices")
    assert isinstance(pool, PoolProblem) and pool.bytes == 4 * (32 + 8) + 8 * 8
    for pass_ in ("forward", "grad_input"):  # 2.75 bytes per input element, of a stride of 2
        offsets = parse(f"max_pool2d.{pass_} n1c2h8w8 r3s3 u2 p1 bf16 offsets")
        assert isinstance(offsets, PoolProblem) and offsets.bytes == 2.75 * 2 * 64


@pytest.mark.parametrize(
    "text, said",
    [
        ("max_pool2d.forward n1c1h99w99 r17s16 offsets", "256"),
        ("max_pool2d.forward n1c1h9w2 r2s2 p1 d1x3 offsets", "never empty"),
        ("adaptive_max_pool2d.forward n1c1h9w9 o3 offsets", "max_pool"),
        ("avg_pool2d.forward n1c1h9w9 r2s2 offsets", "max_pool"),
        ("max_pool2d.forward n1c1h9w9 r2s2 indices+offsets", "one tensor"),
    ],
)
def test_what_has_no_offsets(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text)
    widest = parse("max_pool2d.forward n1c1h99w99 r16s16 offsets")
    assert isinstance(widest, PoolProblem) and widest.indices == "offset"


@pytest.mark.parametrize("text", ["conv2d.forward n1c3h64w64 k8r3s3 u{}", "max_pool2d.forward n1c3h64w64 r3s3 u{}"])
def test_every_stride_is_a_stride(text):
    """And not, for one of them, a dtype."""
    for stride in range(1, 70):
        found = parse(text.format(stride))
        assert found.stride == (stride, stride) and found.dtype == "f32" and parse(str(found)) == found
    assert parse("relu.forward e8 uint8").dtype == "uint8"
