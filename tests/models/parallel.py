"""One of two processes that train models together: ``python -m tests.models.parallel RANK FOLDER MODEL...``

After a step on images of its own each has the mean of both processes' gradients. Says which models it was so for.
"""

import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import pycv

from .test_behaviour import gradients, reduced


def agrees(name: str, rank: int) -> bool:
    """In float64, of the reduced model: DistributedDataParallel's gradients, and the mean of what each has alone."""
    torch.manual_seed(rank)
    model, x = reduced(name)
    model, x = model.double(), x.double()
    alone = gradients(model, x)
    for gradient in alone.values():
        distributed.all_reduce(gradient)
        gradient /= 2
    together = gradients(DistributedDataParallel(model), x)
    return all((together[f"module.{key}"] - g).norm() <= 1e-10 * g.norm() for key, g in alone.items())


def main(rank: str, folder: str, *names: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=int(rank), world_size=2)
    with pycv.use(backend="cpu"):
        agreeing = [name for name in names if agrees(name, int(rank))]
    distributed.destroy_process_group()
    print(*agreeing)


if __name__ == "__main__":
    main(*sys.argv[1:])
