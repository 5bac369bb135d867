"""Models leave as plain ONNX, which another runtime computes alike, and train in several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pycv
from pycv import models

from .golden import calibrate

ROOT = Path(__file__).parents[2]
# As small as each takes; 64 where nothing is said.
SIZES = {
    "lenet5": 32, "lenet5_original": 32, "perceptron": 28, "mlp": 28, "maxout_mlp": 28,
    "alexnet_original": 227, "alexnet_ungrouped": 227, "alexnet": 67, "zfnet": 224, "inception_v3": 299,
    "resnet20": 32, "squeezenet1_0": 67, "squeezenet1_1": 67, "xception": 75, "vit_b_16": 224,
}  # fmt: skip
QUICK = ("squeezenet1_1",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.full) for n in models.list_models()]
)
def test_onnx_without_pycv_computes_the_same(name, tmp_path):
    import onnx
    import onnxruntime

    size = SIZES.get(name, 64)
    channels, *_ = models.image_shape(name)
    x = torch.randn(2, channels, size, size)
    model = models.create(name)
    if name == "vit_b_16":
        torch.nn.init.normal_(model.heads.head.weight)  # zeros at first
    calibrate(model, x)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    assert {node.domain for node in onnx.load(path, load_external_data=False).graph.node} <= {"", "ai.onnx"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad(), pycv.use(backend="cpu"):
        expected = model(x)
    assert expected.abs().max() > 1e-3
    # float32, whose rounding a hundred normalisations by the statistics of two images multiply
    torch.testing.assert_close(torch.from_numpy(result), expected, rtol=0, atol=1e-2 * expected.abs().max().item())


DDP = """
import sys, torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
import pycv
from pycv import models

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.set_num_threads(1)
torch.manual_seed(rank)  # DDP gives every process the parameters of the first
model, x = torch.load(f"{folder}/problem.pt", weights_only=False)
if rank:
    models.transfer.replace_head(model, 10)
parallel = DistributedDataParallel(model.train())
with pycv.use(backend="cpu"):
    for _ in range(2):
        functional.cross_entropy(parallel(x[2 * rank : 2 * rank + 2]), torch.arange(2) + 2 * rank).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
torch.save([p.detach() for p in model.parameters()], f"{folder}/{rank}.pt")
del parallel  # the group's last holder would wait for gloo's threads, which may wait for it
distributed.destroy_process_group()
"""


@pytest.mark.full
def test_two_processes_train_as_one(tmp_path):
    """gloo, two images each: after two steps both have what one process has after seeing all four."""
    model, x = models.create("lenet5").double(), torch.randn(4, 1, 32, 32, dtype=torch.float64)
    torch.save((model, x), tmp_path / "problem.pt")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", DDP]
    processes = [subprocess.Popen([*command, str(r), str(tmp_path)], env=environment) for r in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for _ in range(2):
        torch.nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    for rank in range(2):
        for got, wanted in zip(torch.load(tmp_path / f"{rank}.pt"), model.parameters(), strict=True):
            torch.testing.assert_close(got, wanted.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.full
def test_every_model_trains_in_two_processes(tmp_path):
    names = models.list_models()
    command = [sys.executable, "-W", "ignore", "-m", "tests.models.parallel"]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path), *names], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for rank in range(2)
    ]
    for process in processes:
        agreeing, _ = process.communicate(timeout=1200)
        assert process.returncode == 0 and agreeing.split() == names
