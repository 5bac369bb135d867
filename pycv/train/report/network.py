"""What the network learned and what it costs: the filters of its first layer, the time of each kind of layer."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from . import pictures
from .layer_timing import PASSES, Cost, layer_costs
from .page import Bar, Section, table
from .recorded import Run

TIMED_IMAGES = 32  # at most; a batch of the recipe's size may need minutes


def filters(model: nn.Module, run: Run) -> Section:
    found = pictures.filters(model, run.settings().get("augment.size"))
    if found is None:
        return Section("filters", "Learned filters", "")
    sheet, words = found
    return Section(
        "filters", "Learned filters", f'<img alt="filters of the first layer" src="{pictures.data_url(sheet)}">', words
    )


def timing(model: nn.Module, run: Run) -> Section:
    """Measured now, with the kernels that the settings in force choose."""
    title = "Time per kind of layer"
    images = _images(model, run)
    if images is None:
        return Section("timing", title, "")
    costs = layer_costs(model, images)
    rows = [_cost_row(cost, sum(cost.forward + cost.backward for cost in costs)) for cost in costs]
    inference, forward, backward = (_ms(sum(getattr(cost, name) for cost in costs)) for name in PASSES)
    rows.append(("all", "", inference, forward, backward, "", "", ""))
    header = ("kind", "layers", "inference, ms", "forward, ms", "backward, ms", "share of the step", "", "kernels")
    shape, threads = "×".join(map(str, images.shape)), torch.get_num_threads()
    note = (
        f"An inference and a training step (forward in training mode, backward; without the optimizer) of a batch of "
        f"{shape} on {images.device.type}, {threads} thread{'s' if threads > 1 else ''}. Measured with this page, "
        f"after the run."
    )
    return Section("timing", title, table(header, rows, numbers=(1, 2, 3, 4, 5)), note)


def _cost_row(cost: Cost, step: float) -> tuple[object, ...]:
    share = (cost.forward + cost.backward) / step
    passes = (_ms(cost.forward), _ms(cost.backward), f"{100 * share:.1f} %", Bar(share))
    return cost.kind, cost.layers or "", _ms(cost.inference), *passes, _kernels(cost)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}"


def _kernels(cost: Cost) -> str:
    """``cpu:direct 4×, torch:torch 2×``: the calls of a training step, all passes together."""
    calls: Counter[str] = Counter()
    for (kernel, _), count in cost.kernels.items():
        calls[kernel] += count
    return ", ".join(f"{kernel} {count}×" for kernel, count in calls.most_common())


def _images(model: nn.Module, run: Run) -> Tensor | None:
    """A batch of noise as the recipe describes its pictures; None where the recipe or the network does not say how."""
    size, batch = run.settings().get("augment.size"), run.settings().get("batch_size", TIMED_IMAGES)
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))), None)
    parameter = next(model.parameters(), None)
    if size is None or first is None or parameter is None:
        return None
    channels = first.in_channels if isinstance(first, nn.Conv2d) else first.in_features // size**2
    shape = (min(batch, TIMED_IMAGES), channels, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(parameter.device, parameter.dtype)
