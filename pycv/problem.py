"""Problems: all that decides which kernel runs, as frozen, hashable values with a one-line text form.

Grammar of the text (tokens separated by spaces; those in brackets may be left out at their default)::

    conv:      OP.PASS nNcC[dDhHwW] kK[tTrRsS] [oOUT] [uSTRIDE] [pPADDING] [dDILATION] [gGROUPS] DTYPE LAYOUT DEVICE
               [pre=PROLOGUE] [EPILOGUE]
    gemm:      gemm.forward [bBATCH]mMnNkK DTYPE [a=MATRIX] [b=MATRIX] [out=MATRIX] [res=MATRIX] DEVICE [EPILOGUE]
    pool:      OP.PASS nNcC[dDhHwW] [[tT]rRsS] [oOUT] [uSTRIDE] [pPADDING] [dDILATION] DTYPE LAYOUT DEVICE [FLAGS]
    norm:      OP.PASS nNcC[dDhHwW] [lWINDOW] DTYPE LAYOUT DEVICE [FLAGS]
    pointwise: OP.PASS eCOUNT DTYPE DEVICE [FLAGS]

    OP        conv1d conv2d conv3d; max_pool2d, adaptive_avg_pool3d, ...; batch_norm, local_response_norm, channel_sum;
              relu
    PASS      forward, grad_input, grad_weight
    dDhHwW    spatial sizes: w, h w or d h w
    tTrRsS    filter sizes (depth t, height r, width s)
    o u p d   output sizes, stride, padding, dilation: one number, or one per axis joined by x (p1x0)
    LAYOUT    INPUT[>OUTPUT] [w=WEIGHT] [res=RESIDUAL], each nchw, nhwc, nchw8c or nchw16c (of every rank),
              optionally with its outer strides in elements: nchw/BATCH, nchw16c/BATCH, nhwc/BATCH/PIXEL
              (a channel slice of a larger tensor)
    MATRIX    row or col (which index is contiguous), optionally /LEADING/BATCH, or any/ROW/COLUMN/BATCH
    DTYPE     f32 f64 f16 bf16 and whatever else torch has, DEVICE cpu or cuda
    PROLOGUE  scale (per channel, with a shift) and relu joined by +, applied to the input in that order
    EPILOGUE  bias, residual and relu joined by +, applied in that order
    FLAGS     pooling: indices or offsets, exclude_pad, divisorN; batch_norm: training and the epilogue; relu: mask;
              joined by +

Example: ``conv2d.forward n8c64h56w56 k64r3s3 p1 f32 nchw cpu``. ``parse(str(problem)) == problem`` always holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

PASSES = ("forward", "grad_input", "grad_weight")
EPILOGUES = ("bias", "residual", "relu")
PROLOGUES = ("scale", "relu")
BLOCKS = {"nchw": 1, "nhwc": 1, "nchw8c": 8, "nchw16c": 16}
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How an (N, C, spatial...) tensor lies in memory: ``name`` and, if not dense, its outer strides in elements.

    ``outer`` is () for a dense tensor, (batch,) for nchw and its blocked forms, (batch, pixel) for nhwc. A dense
    blocked tensor is an array (N, ceil(C / block), spatial..., block) whose channels beyond C are zeros.
    """

    name: str = "nchw"
    outer: Sizes = ()

    @property
    def block(self) -> int:
        """Channels of a pixel that lie side by side before the next pixel begins; 1 for nchw and nhwc."""
        return BLOCKS[self.name]

    def strides(self, c: int, size: Sizes) -> Sizes:
        """Element strides of (n, c, *spatial); of a blocked layout those of (n, block of channels, *spatial)."""
        if self.block > 1:
            plane = self.block * _product(size)
            batch = self.outer[0] if self.outer else -(-c // self.block) * plane
            return (batch, plane, *(self.block * s for s in _dense_strides(size)))
        if self.name == "nchw":
            spatial = _dense_strides(size)
            plane = _product(size)
            return (self.outer[0] if self.outer else c * plane, plane, *spatial)
        pixel = self.outer[1] if self.outer else c
        spatial = tuple(pixel * s for s in _dense_strides(size))
        batch = self.outer[0] if self.outer else pixel * _product(size)
        return (batch, 1, *spatial)

    def __str__(self) -> str:
        return "/".join([self.name, *map(str, self.outer)])

    @staticmethod
    def parse(text: str) -> Layout:
        name, *outer = text.split("/")
        if name not in BLOCKS:
            raise ValueError(f"layout {text!r}: expected {', '.join(BLOCKS)}")
        if outer and len(outer) != (2 if name == "nhwc" else 1):
            raise ValueError(f"layout {text!r}: expected {'nhwc/BATCH/PIXEL' if name == 'nhwc' else f'{name}/BATCH'}")
        return Layout(name, tuple(map(int, outer)))

    @staticmethod
    def of(shape: Sizes, strides: Sizes) -> Layout | None:
        """The layout of a tensor of this shape (N, C, spatial...) and these strides; None if it has neither.

        nchw wins where both describe the same memory, so that equal memory gives equal problems.
        """
        n, c, *size = shape
        for name in ("nchw", "nhwc"):
            dense = Layout(name)
            if _same_memory(shape, strides, dense.strides(c, tuple(size))):
                return dense
            pixel = _pixel_stride(shape, strides) if name == "nhwc" else 1
            batch = strides[0] if n > 1 else dense.strides(c, tuple(size))[0]
            if pixel is None:
                continue
            if name == "nhwc" and n == 1:
                batch = pixel * _product(tuple(size))
            sliced = Layout(name, (batch,) if name == "nchw" else (batch, pixel))
            if _same_memory(shape, strides, sliced.strides(c, tuple(size))):
                return sliced
        return None


def _pixel_stride(shape: Sizes, strides: Sizes) -> int | None:
    """The stride between neighbouring pixels of an nhwc tensor, from its last axis longer than 1."""
    inner = 1
    for extent, stride in zip(reversed(shape[2:]), reversed(strides[2:]), strict=True):
        if extent > 1:
            return stride // inner if stride % inner == 0 else None
        inner *= extent
    return max(shape[1], 1)


def _same_memory(shape: Sizes, a: Sizes, b: Sizes) -> bool:
    """Strides of axes of length 1 address nothing; an empty tensor lies anywhere."""
    return 0 in shape or all(e == 1 or x == y for e, x, y in zip(shape, a, b, strict=True))


def _product(values: Sizes) -> int:
    result = 1
    for value in values:
        result *= value
    return result


def _dense_strides(size: Sizes) -> Sizes:
    strides: list[int] = []
    step = 1
    for extent in reversed(size):
        strides.insert(0, step)
        step *= extent
    return tuple(strides)


def output_size(size: Sizes, filter: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """Output extents of a convolution or of pooling without ceil_mode: floor((i + 2p - d(f-1) - 1) / u) + 1."""
    return tuple(
        (i + 2 * p - d * (f - 1) - 1) // u + 1
        for i, f, u, p, d in zip(size, filter, stride, padding, dilation, strict=True)
    )


@dataclass(frozen=True)
class ConvProblem:
    """A convolution: input (n, c, *size), weight (k, c / groups, *filter), output (n, k, *output_size).

    The three tensors keep their names in every pass; the pass says which is computed from the other two.
    A transposed convolution is the grad_input pass. Padding is the left one; whatever of the input lies
    beyond the last window follows from output_size. The epilogue applies to the tensor computed, the prologue to the
    input of a forward pass, before it is padded.
    """

    op: str
    pass_: str
    n: int
    c: int
    size: Sizes
    k: int
    filter: Sizes
    output_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int = 1
    dtype: str = "f32"
    device: str = "cpu"
    input: Layout = Layout()
    weight: Layout = Layout()
    output: Layout = Layout()
    residual: Layout | None = None
    epilogue: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct algorithm (two per multiply-add; padding counted)."""
        return 2 * self.n * self.k * _product(self.output_size) * (self.c // self.groups) * _product(self.filter)

    @property
    def bytes(self) -> int:
        """The fewest bytes that have to move: each tensor once."""
        elements = self.n * self.c * _product(self.size) + self.n * self.k * _product(self.output_size)
        if self.residual is not None:
            elements += self.n * (self.k if self.pass_ == "forward" else self.c) * _product(self.computed_size)
        return _itemsize(self.dtype) * (elements + self.k * (self.c // self.groups) * _product(self.filter))

    @property
    def computed_size(self) -> Sizes:
        return {"forward": self.output_size, "grad_input": self.size, "grad_weight": self.filter}[self.pass_]

    def __str__(self) -> str:
        default_out = output_size(self.size, self.filter, self.stride, self.padding, self.dilation)
        tokens = [
            f"{self.op}.{self.pass_}",
            f"n{self.n}c{self.c}" + _sizes_text("dhw", self.size),
            f"k{self.k}" + _sizes_text("trs", self.filter),
            _axes_text("o", self.output_size, default_out),
            *_window_text(self),
            f"g{self.groups}" if self.groups != 1 else "",
            self.dtype,
            _layout_text(self.input, self.output, self.weight, self.residual),
            self.device,
            "pre=" + "+".join(self.prologue) if self.prologue else "",
            "+".join(self.epilogue),
        ]
        return " ".join(filter(None, tokens))


@dataclass(frozen=True)
class Matrix:
    """How a (batch, rows, columns) operand lies: ``row`` or ``col`` says which index is contiguous.

    ``outer`` is () for dense, (leading, batch) strides in elements otherwise; kind ``any`` has (row, column, batch).
    """

    kind: str = "row"
    outer: Sizes = ()

    def strides(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Element strides of (batch, row, column)."""
        if self.kind == "any":
            row, column, batch = self.outer
            return batch, row, column
        leading = self.outer[0] if self.outer else (columns if self.kind == "row" else rows)
        batch = self.outer[1] if self.outer else rows * columns
        return (batch, leading, 1) if self.kind == "row" else (batch, 1, leading)

    def __str__(self) -> str:
        return "/".join([self.kind, *map(str, self.outer)])

    @staticmethod
    def parse(text: str) -> Matrix:
        kind, *outer = text.split("/")
        if kind not in ("row", "col", "any") or len(outer) not in ((3,) if kind == "any" else (0, 2)):
            raise ValueError(f"matrix layout {text!r}: expected row, col, row/LEADING/BATCH or any/ROW/COLUMN/BATCH")
        return Matrix(kind, tuple(map(int, outer)))

    @staticmethod
    def of(shape: Sizes, strides: Sizes) -> Matrix:
        """The layout of a (batch, rows, columns) tensor."""
        _, rows, columns = shape
        for kind in ("row", "col"):
            dense = Matrix(kind)
            if _same_memory(shape, strides, dense.strides(rows, columns)):
                return dense
        batch, row, column = (0 if e == 1 else s for e, s in zip(shape, strides, strict=True))
        if (column == 1 or columns == 1) and row >= columns:
            return Matrix("row", (row, batch))
        if (row == 1 or rows == 1) and column >= rows:
            return Matrix("col", (column, batch))
        return Matrix("any", (row, column, batch))


@dataclass(frozen=True)
class GemmProblem:
    """out = relu(alpha * a @ b + beta * residual + bias): a (batch, m, k), b (batch, k, n), bias (n)."""

    m: int
    n: int
    k: int
    batch: int = 1
    dtype: str = "f32"
    device: str = "cpu"
    a: Matrix = Matrix()
    b: Matrix = Matrix()
    out: Matrix = Matrix()
    residual: Matrix | None = None
    epilogue: tuple[str, ...] = ()
    op: str = "gemm"
    pass_: str = "forward"

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.m * self.n * self.k

    @property
    def bytes(self) -> int:
        elements = self.m * self.k + self.k * self.n + self.m * self.n * (2 if self.residual is not None else 1)
        return _itemsize(self.dtype) * self.batch * elements

    def __str__(self) -> str:
        matrices = {"a": self.a, "b": self.b, "out": self.out, "res": self.residual}
        tokens = [
            f"{self.op}.{self.pass_}",
            (f"b{self.batch}" if self.batch != 1 else "") + f"m{self.m}n{self.n}k{self.k}",
            self.dtype,
            *(f"{name}={m}" for name, m in matrices.items() if m is not None and (name == "res" or m != Matrix())),
            self.device,
            "+".join(self.epilogue),
        ]
        return " ".join(filter(None, tokens))


@dataclass(frozen=True)
class PoolProblem:
    """Pooling of input (n, c, *size) to output (n, c, *output_size). ``filter`` is () for the adaptive ops.

    ``indices`` says how max pooling names the element that it took (written forward, read in grad_input): "int64" by
    its position in the plane; "offset", where :func:`has_offsets` allows that, in one byte by its number among the
    elements of the window, those in the padding included; "" not at all.
    """

    op: str
    pass_: str
    n: int
    c: int
    size: Sizes
    output_size: Sizes
    filter: Sizes = ()
    stride: Sizes = ()
    padding: Sizes = ()
    dilation: Sizes = ()
    dtype: str = "f32"
    device: str = "cpu"
    input: Layout = Layout()
    output: Layout = Layout()
    indices: str = ""
    count_include_pad: bool = True
    divisor: int = 0

    @property
    def flops(self) -> int:
        """Comparisons or additions: one per window element."""
        window = self.filter or tuple(-(-i // max(o, 1)) for i, o in zip(self.size, self.output_size, strict=True))
        return self.n * self.c * _product(self.output_size) * _product(window)

    @property
    def bytes(self) -> int:
        outputs = self.n * self.c * _product(self.output_size)
        inputs = self.n * self.c * _product(self.size)
        index = ITEMSIZES[self.index_dtype] if self.indices else 0
        return _itemsize(self.dtype) * (inputs + outputs) + index * outputs

    @property
    def index_dtype(self) -> str:
        """Of the tensor of indices, where there is one."""
        return "uint8" if self.indices == "offset" else "i64"

    def __str__(self) -> str:
        default_out: Sizes = ()
        if self.filter:
            default_out = output_size(self.size, self.filter, self.stride, self.padding, self.dilation)
        flags = [
            _INDEX_FLAGS[self.indices],
            "" if self.count_include_pad else "exclude_pad",
            f"divisor{self.divisor}" if self.divisor else "",
        ]
        tokens = [
            f"{self.op}.{self.pass_}",
            f"n{self.n}c{self.c}" + _sizes_text("dhw", self.size),
            _sizes_text("trs", self.filter),
            _axes_text("o", self.output_size, default_out),
            *_window_text(self),
            self.dtype,
            _layout_text(self.input, self.output),
            self.device,
            "+".join(filter(None, flags)),
        ]
        return " ".join(filter(None, tokens))


_INDEX_FLAGS = {"": "", "int64": "indices", "offset": "offsets"}


def has_offsets(size: Sizes, filter: Sizes, padding: Sizes, dilation: Sizes) -> bool:
    """Whether a byte can number the elements of a window. Not those of the adaptive ops, which are not all alike; nor
    where a window may have no element inside the input: its index names none of its elements."""
    few = filter != () and _product(filter) <= 256
    return few and all(d <= i or p == 0 for i, p, d in zip(size, padding, dilation, strict=True))


@dataclass(frozen=True)
class NormProblem:
    """batch_norm, local_response_norm over ``window`` channels, or channel_sum, of input (n, c, *size).

    The epilogue (residual, relu) is batch_norm's. In grad_input ``output`` is also the layout of the forward's output
    and ``residual`` that of the residual's gradient.
    """

    op: str
    pass_: str
    n: int
    c: int
    size: Sizes
    dtype: str = "f32"
    device: str = "cpu"
    input: Layout = Layout()
    output: Layout = Layout()
    training: bool = False
    window: int = 0
    residual: Layout | None = None
    epilogue: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """About what one pass over the elements does: scale and shift, plus the sums in training."""
        per_element = {"batch_norm": 6 if self.training else 2, "channel_sum": 1}.get(self.op, 2 * self.window + 4)
        return per_element * self.n * self.c * _product(self.size) * (1 if self.pass_ == "forward" else 2)

    @property
    def bytes(self) -> int:
        tensors = {"channel_sum": 1}.get(self.op, 2 if self.pass_ == "forward" else 3)
        tensors += self.residual is not None  # read, or its gradient written
        tensors += self.pass_ == "grad_input" and "relu" in self.epilogue  # the forward's output
        return _itemsize(self.dtype) * tensors * self.n * self.c * _product(self.size)

    def __str__(self) -> str:
        tokens = [
            f"{self.op}.{self.pass_}",
            f"n{self.n}c{self.c}" + _sizes_text("dhw", self.size),
            f"l{self.window}" if self.window else "",
            self.dtype,
            _layout_text(self.input, self.output, residual=self.residual),
            self.device,
            "+".join((*(["training"] if self.training else []), *self.epilogue)),
        ]
        return " ".join(filter(None, tokens))


@dataclass(frozen=True)
class PointwiseProblem:
    """A function of single elements over ``count`` of them, dense in memory.

    ``mask``: forward also writes a bit per element, whether the gradient passes there, and grad_input reads those in
    place of the forward's output. That of element i is bit i % 8 of byte i // 8, the last byte filled up with zeros.
    """

    op: str
    pass_: str
    count: int
    dtype: str = "f32"
    device: str = "cpu"
    mask: bool = False

    @property
    def mask_bytes(self) -> int:
        """Of the mask, where there is one."""
        return -(-self.count // 8)

    @property
    def flops(self) -> int:
        return self.count

    @property
    def bytes(self) -> int:
        tensors = 2 if self.pass_ == "forward" or self.mask else 3
        return _itemsize(self.dtype) * self.count * tensors + (self.mask_bytes if self.mask else 0)

    def __str__(self) -> str:
        return f"{self.op}.{self.pass_} e{self.count} {self.dtype} {self.device}" + (" mask" if self.mask else "")


Problem = ConvProblem | GemmProblem | PoolProblem | NormProblem | PointwiseProblem

# u8 would be a stride of 8.
ITEMSIZES = {
    "f32": 4, "f64": 8, "f16": 2, "bf16": 2, "i8": 1, "uint8": 1, "i16": 2, "i32": 4, "i64": 8, "bool": 1,
    "c32": 4, "c64": 8, "c128": 16,
}  # fmt: skip


def _itemsize(dtype: str) -> int:
    return ITEMSIZES.get(dtype, 4)


def _sizes_text(letters: str, sizes: Sizes) -> str:
    return "".join(f"{a}{s}" for a, s in zip(letters[3 - len(sizes) :], sizes, strict=True)) if sizes else ""


def _axes_text(letter: str, values: Sizes, default: Sizes) -> str:
    """``p1``, ``p1x0``, or nothing at the default."""
    if values == default:
        return ""
    return letter + (str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values)))


def _window_text(problem: ConvProblem | PoolProblem) -> list[str]:
    rank = len(problem.stride)
    values = {"u": (problem.stride, 1), "p": (problem.padding, 0), "d": (problem.dilation, 1)}
    return [_axes_text(letter, axes, (default,) * rank) for letter, (axes, default) in values.items()]


def _layout_text(input: Layout, output: Layout, weight: Layout | None = None, residual: Layout | None = None) -> str:
    text = str(input) if input == output else f"{input}>{output}"
    if weight is not None and weight != Layout():
        text += f" w={weight}"
    return text + (f" res={residual}" if residual is not None else "")


_OPS = re.compile(r"((conv|(adaptive_)?(max|avg)_pool)[123]d|gemm|batch_norm|local_response_norm|channel_sum|relu)$")
_LAYOUT = rf"(?:{'|'.join(BLOCKS)})(?:/\d+)*"
_TOKENS = {
    "sizes": re.compile(r"(?:n(?P<n>\d+)c(?P<c>\d+))(?:d(?P<d>\d+))?(?:h(?P<h>\d+))?(?:w(?P<w>\d+))?$"),
    "filter": re.compile(r"(?:k(?P<k>\d+))?(?:t(?P<t>\d+))?(?:r(?P<r>\d+))?(?:s(?P<s>\d+))?$"),
    "gemm": re.compile(r"(?:b(?P<batch>\d+))?m(?P<m>\d+)n(?P<n>\d+)k(?P<k>\d+)$"),
    "axes": re.compile(r"(?P<name>[oupd])(?P<values>\d+(?:x\d+)*)$"),
    "number": re.compile(r"(?P<name>[gle])(?P<value>\d+)$"),
    "named": re.compile(r"(?P<name>w|res|a|b|out|pre)=(?P<value>\S+)$"),
    "layout": re.compile(rf"{_LAYOUT}(?:>{_LAYOUT})?$"),
}


def parse(text: str) -> Problem:
    """The problem that a text describes (see this module's docstring). Raises ValueError naming the bad token."""
    head, *tokens = text.split() or [""]
    op, _, pass_ = head.partition(".")
    pass_ = pass_ or "forward"
    if pass_ not in PASSES:
        raise ValueError(f"problem {text!r}: pass {pass_!r} is none of {', '.join(PASSES)}")
    try:
        fields = _read_tokens(tokens)
        return _build(op, pass_, fields)
    except KeyError as error:
        raise ValueError(f"problem {text!r}: {error} is missing") from None
    except ValueError as error:
        raise ValueError(f"problem {text!r}: {error}") from None


def _read_tokens(tokens: list[str]) -> dict:
    fields: dict = {}
    for token in tokens:
        if token in ("cpu", "cuda"):
            fields["device"] = token
        elif token in ITEMSIZES:
            fields["dtype"] = token
        elif _TOKENS["layout"].match(token):
            input, _, output = token.partition(">")
            fields["input"] = Layout.parse(input)
            fields["output"] = Layout.parse(output or input)
        elif match := _TOKENS["named"].match(token):
            fields[match["name"]] = match["value"]
        elif match := _TOKENS["sizes"].match(token):
            fields["n"], fields["c"] = int(match["n"]), int(match["c"])
            fields["size"] = tuple(int(match[a]) for a in "dhw" if match[a] is not None)
        elif match := _TOKENS["gemm"].match(token):
            fields.update({name: int(value) for name, value in match.groupdict().items() if value is not None})
        elif match := _TOKENS["axes"].match(token):
            fields[match["name"]] = tuple(map(int, match["values"].split("x")))
        elif match := _TOKENS["number"].match(token):
            fields[match["name"]] = int(match["value"])
        elif match := _TOKENS["filter"].match(token):
            fields["filter"] = tuple(int(match[a]) for a in "trs" if match[a] is not None)
            if match["k"] is not None:
                fields["k"] = int(match["k"])
        elif all(_is_flag(word) for word in token.split("+")):
            fields.setdefault("flags", []).extend(token.split("+"))
        else:
            raise ValueError(f"token {token!r} is not understood")
    return fields


def _is_flag(word: str) -> bool:
    known = (*EPILOGUES, "indices", "offsets", "exclude_pad", "training", "mask")
    return word in known or re.match(r"divisor-?\d+$", word) is not None


def _build(op: str, pass_: str, fields: dict) -> Problem:
    common = {key: fields[key] for key in ("dtype", "device") if key in fields}
    flags = fields.get("flags", [])
    if op == "gemm":
        matrices: dict[str, Any] = {name: Matrix.parse(fields[name]) for name in ("a", "b", "out") if name in fields}
        if "res" in fields:
            matrices["residual"] = Matrix.parse(fields["res"])
        sizes = {name: fields[name] for name in ("m", "n", "k")}
        return GemmProblem(**sizes, batch=fields.get("batch", 1), **matrices, **common, epilogue=_epilogue(flags))
    if not _OPS.match(op):
        raise ValueError(f"op {op!r} is not known")
    if op == "relu":
        return PointwiseProblem(op, pass_, fields["e"], **common, mask="mask" in flags)
    if "e" in fields:
        raise ValueError(f"e{fields['e']}: elements are what relu has; {op} has sizes")
    layouts = {name: fields[name] for name in ("input", "output") if name in fields}
    n, c, size = fields["n"], fields["c"], fields["size"]
    if not op.startswith("conv") and "_pool" not in op:
        return NormProblem(
            op, pass_, n, c, size, **common, **layouts, training="training" in flags, window=fields.get("l", 0),
            residual=Layout.parse(fields["res"]) if "res" in fields else None,
            epilogue=_epilogue(flags),
        )  # fmt: skip
    rank = len(size)
    adaptive = op.startswith("adaptive")
    window: dict[str, Any] = {
        name: () if adaptive else _per_axis(fields.get(letter, (default,)), rank, name)
        for name, letter, default in (("stride", "u", 1), ("padding", "p", 0), ("dilation", "d", 1))
    }
    if 0 in window["stride"]:
        raise ValueError("stride 0 must be 1 or more")
    filter = () if adaptive else fields["filter"]
    if not adaptive and len(filter) != rank:
        raise ValueError(f"filter of {len(filter)} sizes: expected {rank}, as many as the input has")
    given = "o" in fields or adaptive  # adaptive: there is nothing else to know it from
    out = _per_axis(fields["o"], rank, "output size") if given else output_size(size, filter, **window)
    if op.startswith("conv"):
        return ConvProblem(
            op, pass_, n, c, size, fields["k"], filter, out, **window, **common, **layouts,
            groups=fields.get("g", 1),
            weight=Layout.parse(fields.get("w", "nchw")),
            residual=Layout.parse(fields["res"]) if "res" in fields else None,
            epilogue=_epilogue(flags),
            prologue=_prologue(fields.get("pre", "")),
        )  # fmt: skip
    divisor = next((int(word[len("divisor") :]) for word in flags if word.startswith("divisor")), 0)
    return PoolProblem(
        op, pass_, n, c, size, out, filter, **window, **common, **layouts,
        indices=_indices(op, flags, size, filter, window["padding"], window["dilation"]),
        count_include_pad="exclude_pad" not in flags, divisor=divisor,
    )  # fmt: skip


def _indices(op: str, flags: list[str], *window: Sizes) -> str:
    words = [word for word, flag in _INDEX_FLAGS.items() if flag in flags]
    if len(words) > 1:
        raise ValueError("indices+offsets: there is one tensor of indices")
    if "offset" in words and not ("max_pool" in op and has_offsets(*window)):
        raise ValueError("offsets: max_pool has them, where windows have at most 256 elements and are never empty")
    return words[0] if words else ""


def _per_axis(values: Sizes, rank: int, name: str) -> Sizes:
    if len(values) not in (1, rank):
        raise ValueError(f"{name} {'x'.join(map(str, values))}: expected 1 or {rank} values")
    return values if len(values) == rank else values * rank


def _prologue(text: str) -> tuple[str, ...]:
    words = text.split("+") if text else []
    for word in words:
        if word not in PROLOGUES:
            raise ValueError(f"prologue {word!r}: expected {' or '.join(PROLOGUES)}")
    return tuple(word for word in PROLOGUES if word in words)


def _epilogue(flags: list[str]) -> tuple[str, ...]:
    return tuple(word for word in EPILOGUES if word in flags)
