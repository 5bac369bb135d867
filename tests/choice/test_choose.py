"""Which kernel is chosen: the fastest by the model or by measurement, among those that the settings allow."""

import time
from dataclasses import replace

import pytest
import torch

import pycv
from pycv import registry, settings
from pycv.choice import cache, model
from pycv.kernels import Kernel
from pycv.problem import PoolProblem, parse

CONV = parse("conv2d.forward n1c8h9w9 k8r3s3")
RATES = model.Rates(1e9, 1e9)


class FakeCost:
    def __init__(self, multiply_adds):
        self.multiply_adds, self.vector_elements, self.bytes, self.regions = multiply_adds, 0.0, 0.0, 0.0


class FakePlan:
    """Takes so long per run, and says that it costs so much."""

    workspace_bytes = prepared_weight_bytes = 0

    def __init__(self, multiply_adds, seconds=0.0, prepare=None):
        self.cost, self.seconds = FakeCost(multiply_adds), seconds
        if prepare is not None:
            self.prepared_weight_bytes, self.prepare_cost = 64, FakeCost(prepare)

    def prepare_weight(self, weight, prepared):
        pass

    def launch(self, *pointers):
        if self.seconds:
            time.sleep(self.seconds)


def kernel(algorithm, plan, variant="", **changes):
    made = Kernel("conv2d", "forward", "cpu", algorithm, lambda p: None, lambda p, threads, limit: plan)
    return replace(made, variant=variant, **changes)


@pytest.fixture
def use_kernels(only_kernels, monkeypatch, tmp_path):
    """Puts these kernels, and torch where asked, in the place of those of conv2d.forward; no measured table."""
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))

    def install(*kernels, torch_too=False, table=None):
        torchs = [k for k in registry.kernels("conv2d", "forward") if k.backend == "torch"] if torch_too else []
        only_kernels("conv2d", "forward", *kernels, *torchs)
        monkeypatch.setattr(model, "current", lambda: table or model.Table("fake", RATES, {1: {}}))

    return install


def chosen(threads=1, kept=False):
    return registry.choose(CONV, settings.current(), threads, kept)


@pytest.mark.parametrize("cheapest", range(3))
def test_the_smallest_prediction_wins_whatever_the_order(use_kernels, cheapest):
    names = ("x", "y", "z")
    use_kernels(*(kernel(name, FakePlan(1e6 if i == cheapest else 3e6)) for i, name in enumerate(names)))
    choice = chosen()
    assert choice.kernel.algorithm == names[cheapest]
    assert choice.basis == "predicted" and choice.reason.startswith("predicted ")
    assert choice.estimates[0][0] == choice.kernel.name and len(choice.estimates) == 3
    assert all(f"cpu:{name}" in choice.reason for name in names if name != names[cheapest])


def test_preparing_counts_unless_the_weight_is_kept(use_kernels):
    use_kernels(kernel("prepared", FakePlan(1e6, prepare=9e6)), kernel("plain", FakePlan(3e6)))
    assert chosen(kept=False).kernel.algorithm == "plain"
    assert chosen(kept=True).kernel.algorithm == "prepared"


def test_a_layer_that_keeps_its_weight_says_so(use_kernels):
    class Prepared(FakePlan):
        def launch(self, input, weight, output, *rest):
            pass

    use_kernels(kernel("prepared", Prepared(1e6, prepare=9e6)), kernel("plain", Prepared(3e6)))
    layer, x = pycv.nn.Conv2d(8, 8, 3).eval(), torch.randn(1, 8, 9, 9)
    with registry.record() as log:
        layer(x)
        with torch.no_grad():
            layer(x)
    assert [call.choice.kernel.algorithm for call in log] == ["plain", "prepared"]


def test_a_plan_that_counts_nothing_is_predicted_from_its_problem(use_kernels):
    use_kernels(kernel("silent", FakePlan(0.0)), kernel("cheap", FakePlan(1.0)))
    assert chosen().kernel.algorithm == "cheap"
    assert dict(chosen().estimates)["cpu:silent"] > dict(chosen().estimates)["cpu:cheap"]


def test_settings_leave_fewer_contenders(use_kernels):
    fast = kernel("tiles", FakePlan(1e5), "big", numeric_class="fast")
    loose = kernel("tiles", FakePlan(1e6), "small", numeric_class="default")
    use_kernels(fast, loose, kernel("plain", FakePlan(3e6)))
    assert chosen().kernel.name == "cpu:tiles/small"
    with pycv.use(precision="fast"):
        assert chosen().kernel.name == "cpu:tiles/big"
    with pycv.use(precision="strict"):
        assert chosen().kernel.name == "cpu:plain"
        assert chosen().reason == "the only one that supports it"
    with pycv.use(algorithm="tiles", precision="fast"):
        assert chosen().kernel.name == "cpu:tiles/big"
    with pycv.use(algorithm="tiles/small", precision="fast"):
        assert chosen().kernel.name == "cpu:tiles/small" and chosen().reason == "asked for"
    with pycv.use(prefer="plain"):
        assert chosen().kernel.name == "cpu:plain" and chosen().reason == "preferred"
    with pycv.use(prefer="tiles", precision="fast"):
        assert chosen().kernel.name == "cpu:tiles/big" and chosen().reason.startswith("preferred, predicted")


def table_with_torch(seconds):
    """torch takes ``seconds`` for anything; a kernel a nanosecond per multiply-add."""
    torchs = next(k for k in registry.kernels("conv2d", "forward") if k.backend == "torch")
    nothing = dict.fromkeys(RATES.guess(), 0.0)
    groups = {
        model.group_of(torchs, CONV, None): nothing | {"calls": seconds},
        "conv.forward cpu:own nchw": nothing | {"multiply_adds": 1e-9},
    }
    return model.Table("fake", RATES, {1: groups})


def test_torch_runs_what_it_is_faster_at_by_a_margin(use_kernels):
    own = kernel("own", FakePlan(1e6))
    enough = 1e-3 / registry.TORCH_MARGIN
    for seconds, expected in ((0.95 * enough, "torch"), (1.05 * enough, "cpu"), (1.1e-3, "cpu")):
        use_kernels(own, torch_too=True, table=table_with_torch(seconds))
        assert chosen().kernel.backend == expected
        assert "torch:torch" in chosen().reason or expected == "torch"
        with pycv.use(backend="cpu"):
            assert chosen().kernel.backend == "cpu"


def test_torch_runs_everything_on_a_device_class_that_was_never_measured(use_kernels):
    use_kernels(kernel("own", FakePlan(1.0)), torch_too=True, table=model.Table("none", RATES, {}))
    assert chosen().kernel.backend == "torch" and "pycv tune machine" in chosen().reason
    with pycv.use(backend="cpu"):
        assert chosen().kernel.backend == "cpu"


def test_a_kernel_that_the_table_lacks_is_guessed_with_caution():
    measured, unmeasured = kernel("own", FakePlan(1e6)), kernel("new", FakePlan(1e6))
    table = table_with_torch(1.0)
    by = {k.algorithm: model.predicted(table, k, CONV, k.plan(CONV, 1, 0), 1, True) for k in (measured, unmeasured)}
    assert by["new"] > by["own"] > 0


def test_thread_counts_and_layouts_fall_back_on_their_neighbours():
    own = kernel("own", FakePlan(1e6))
    nothing, name = dict.fromkeys(RATES.guess(), 0.0), "conv.forward cpu:own nchw"
    groups = {n: {name: nothing | {"multiply_adds": constant}} for n, constant in ((1, 1e-9), (8, 5e-9))}
    table = model.Table("t", RATES, groups)
    seconds = lambda threads, p=CONV: model.predicted(table, own, p, FakePlan(1e6), threads, False)  # noqa: E731
    assert [seconds(n) for n in (1, 2, 4, 8, 64)] == pytest.approx([1e-3, 1e-3, 5e-3, 5e-3, 5e-3])
    assert seconds(1, parse("conv2d.forward n1c8h9w9 k8r3s3 nhwc")) == pytest.approx(1e-3)


def test_a_convolution_of_few_channels_has_constants_of_its_own():
    own, nothing = kernel("own", FakePlan(1e6)), dict.fromkeys(RATES.guess(), 0.0)
    constants = {"nchw": 1e-9, "nchw/few": 3e-9, "nhwc": 5e-9}
    groups = {f"conv.forward cpu:own {name}": nothing | {"multiply_adds": c} for name, c in constants.items()}
    table = model.Table("t", RATES, {1: groups})
    seconds = lambda text: model.predicted(table, own, parse(text), FakePlan(1e6), 1, False)  # noqa: E731
    assert seconds("conv2d.forward n1c3h9w9 k32r3s3") == pytest.approx(3e-3)
    assert seconds("conv2d.forward n1c32h9w9 k32r3s3") == pytest.approx(1e-3)
    assert seconds("conv2d.forward n1c3h9w9 k32r1s1") == pytest.approx(1e-3)
    assert seconds("conv2d.forward n1c3h9w9 k32r3s3 nhwc") == pytest.approx(5e-3)  # rather than those of nchw/few


# ------------------------------------------------------------------------------------------------ autotune, cache


def test_bytes_beyond_the_caches_and_fresh_results_count_for_themselves():
    small, large = (parse(f"relu.forward e{count} f32") for count in (10**6, 10**7))
    for problem, far, fresh in ((small, 0, 0), (large, 8e7 - 2**24, 4e7)):
        assert model.counts_of(problem, None, 1)["far_bytes"] == far
        assert model.counts_of(problem, None, 1)["fresh_bytes"] == fresh
    own = model.counts_of(CONV, FakePlan(1e6), 1)
    assert "far_bytes" in own and "fresh_bytes" not in own  # pycv's large results are in huge pages


def test_a_kept_weight_comes_from_memory():
    """... since a table is measured with weights that stay in the caches: of two equally fast kernels the one with the
    smaller weight is taken, and where none is prepared the plain one counts."""
    table = model.Table("t", RATES, {1: {"conv.forward cpu:own nchw": {"multiply_adds": 1e-9}}})
    own, plan, per_byte = kernel("own", None), FakePlan(1e6), RATES.guess()["far_bytes"]
    hot = model.predicted(table, own, CONV, plan, 1, False)
    assert hot is not None
    for prepared, read in ((0, 8 * 8 * 9 * 4), (10**6, 10**6)):
        plan.prepared_weight_bytes = prepared
        assert model.predicted(table, own, CONV, plan, 1, True) - hot == pytest.approx(read * per_byte)


def test_far_is_the_memory_of_a_call_however_often_it_is_read():
    plan = FakePlan(1e6)
    plan.cost.bytes = 1e9  # a weight that passes by many times
    assert model.counts_of(CONV, plan, 1)["far_bytes"] == 0
    plan.workspace_bytes, plan.prepared_weight_bytes = 2**24, 1000
    assert model.counts_of(CONV, plan, 1)["far_bytes"] == CONV.bytes + 1000


def test_autotune_takes_what_is_really_faster_and_remembers(use_kernels):
    quick, slow = FakePlan(9e6, seconds=1e-4), FakePlan(3e6, seconds=2e-3)
    use_kernels(kernel("quick", quick), kernel("slow", slow))
    assert chosen().kernel.algorithm == "slow"  # predicted
    with pycv.use(autotune=True):
        tuned = chosen()
    assert tuned.kernel.algorithm == "quick" and tuned.basis == "measured"
    assert tuned.reason.startswith("tuned: measured ") and "; cpu:slow " in tuned.reason
    assert dict(tuned.estimates)["cpu:slow"] >= 2e-3  # so long it sleeps, and longer on a busy machine
    quick.launch = slow.launch = lambda *pointers: pytest.fail("measured again")
    assert chosen().kernel.algorithm == "quick"  # a tuned problem stays tuned, without autotune too
    with pycv.use(autotune=True):
        assert chosen().reason == tuned.reason
    cache.clear()
    assert chosen().kernel.algorithm == "slow"


def tiled_kernel(plans):
    """A kernel with one of these plans for each tile; by itself it takes the first."""
    first = next(iter(plans))
    return replace(
        kernel("tiled", None), tiles=lambda problem: tuple(plans), plan=lambda *_, tile=first: plans[tile]
    )  # fmt: skip


@pytest.fixture
def as_they_say(monkeypatch):
    """Nothing is run: what plans say that they take is what was measured. Yields how often."""
    measured = []

    def measure(problem, contenders, guesses, kept):
        measured.append(problem)
        return {kernel.name: plan.seconds for kernel, plan in contenders}

    monkeypatch.setattr(registry.autotune, "measure", measure)
    return measured


def test_autotune_measures_every_tile_and_keeps_the_best(use_kernels, as_they_say):
    plans = {tile: FakePlan(1e6, seconds) for tile, seconds in (("64x64", 2e-3), ("32x64", 1e-4), ("16x64", 1e-3))}
    use_kernels(tiled_kernel(plans), kernel("other", FakePlan(2e6, seconds=1e-3)))
    assert chosen().kernel.name == "cpu:tiled"  # nothing measured: the rule's
    with pycv.use(autotune=True):
        tuned = chosen()
    assert tuned.kernel.name == "cpu:tiled[32x64]" and tuned.plan is plans["32x64"]
    assert tuned.kernel.full_algorithm == "tiled"
    assert set(dict(tuned.estimates)) == {"cpu:other", *(f"cpu:tiled[{tile}]" for tile in plans)}
    cache._loaded.clear()  # as another process finds it
    with pycv.use(autotune=True):
        again = chosen()
    assert len(as_they_say) == 1
    assert again.kernel.name == tuned.kernel.name and again.plan is tuned.plan and again.reason == tuned.reason
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shown = pycv.kernels(CONV).rows()
    torch.set_num_threads(threads)
    assert [row["kernel"] for row in shown] == ["cpu:tiled[32x64]", "cpu:other"]


def test_a_tile_that_is_gone_is_measured_again(use_kernels, as_they_say):
    """As those of a kernel of somebody's own, whose source no hash covers."""
    use_kernels(tiled_kernel({"8x8": FakePlan(1e6, 1e-4), "4x4": FakePlan(1e6, 1e-3)}))
    with pycv.use(autotune=True):
        assert chosen().kernel.tile == "8x8"
    use_kernels(tiled_kernel({"2x2": FakePlan(1e6, 1e-3), "4x4": FakePlan(1e6, 1e-4)}))
    assert chosen().basis == ""
    with pycv.use(autotune=True):
        assert chosen().kernel.tile == "4x4"


def test_a_kernel_that_is_asked_for_is_measured_for_its_tile_only(use_kernels, as_they_say):
    plans = {"8x8": FakePlan(1e6, 2e-3), "4x4": FakePlan(1e6, 1e-4)}
    use_kernels(tiled_kernel(plans), kernel("other", FakePlan(2e6)))
    with pycv.use(algorithm="tiled"):
        assert chosen().reason == "asked for" and chosen().plan is plans["8x8"]
        with pycv.use(autotune=True):
            assert chosen().reason.startswith("tuned: measured ") and chosen().plan is plans["4x4"]
        assert chosen().plan is plans["4x4"]
    assert len(as_they_say) == 1
    use_kernels(tiled_kernel({"8x8": FakePlan(1e6)}))
    with pycv.use(autotune=True):
        assert chosen().reason == "the only one that supports it"


def test_autotune_measures_torch_too_and_not_the_hopeless(use_kernels):
    hopeless = FakePlan(1e12)
    hopeless.launch = lambda *pointers: pytest.fail("tried")
    use_kernels(kernel("slow", FakePlan(1.0, seconds=5e-2)), kernel("hopeless", hopeless), torch_too=True)
    start = time.perf_counter()
    with pycv.use(autotune=True):
        tuned = chosen()
    assert tuned.kernel.backend == "torch" and tuned.plan is None
    assert set(dict(tuned.estimates)) == {"cpu:slow", "torch:torch"}
    assert time.perf_counter() - start < 5


def test_whatever_matters_is_in_the_key(use_kernels):
    use_kernels(kernel("quick", FakePlan(9e6, seconds=1e-4)), kernel("slow", FakePlan(3e6, seconds=1e-3)))
    with pycv.use(autotune=True):
        chosen()
    assert chosen().basis == "measured" and chosen(threads=2).basis == chosen(kept=True).basis == "predicted"
    for changed in ({"precision": "default"}, {"deterministic": True}, {"workspace_limit": 1}):
        with pycv.use(**changed):
            assert chosen().basis == "predicted", changed
    with pycv.use(weight_cache_limit=1):
        assert chosen().basis == "measured"


def test_a_gpu_kernel_that_needs_too_much_workspace_is_passed_over(use_kernels):
    """The next one takes its place; on a CPU what threads work in comes on top of the limit."""
    plans = {name: FakePlan(1e6) for name in ("large", "larger", "small")}
    for plan, needed in zip(plans.values(), (101, 102, 100), strict=True):
        plan.workspace_bytes = needed
    use_kernels(*(kernel(name, plan, backend="cuda") for name, plan in plans.items()))
    with pycv.use(backend="cuda", workspace_limit=100):
        choice = chosen()
        assert choice.plan is plans["small"]
        assert choice.rejected == tuple(
            f"cuda:{name}: needs {needed} bytes of workspace, workspace_limit=100"
            for name, needed in (("large", 101), ("larger", 102))
        )
        with pycv.use(prefer="large"):
            assert chosen().plan is plans["small"]
        with pycv.use(algorithm="large"), pytest.raises(pycv.UnsupportedError, match="needs 101 bytes of workspace"):
            chosen()
    use_kernels(kernel("large", plans["large"]))
    with pycv.use(workspace_limit=100):
        assert chosen().plan is plans["large"]


def test_what_norms_keep_for_each_channel_comes_on_top_of_the_limit(only_kernels):
    """No kernel of theirs does with less, and nothing else could sum up the gradient of a bias."""
    plan = FakePlan(1e6)
    plan.workspace_bytes = 4
    only_kernels("channel_sum", "forward", kernel("sums", plan, backend="cuda", op="channel_sum"))
    with pycv.use(backend="cuda", workspace_limit=0):
        problem = parse("channel_sum.forward n1c1h1w1 f32 nchw")
        assert registry.choose(problem, settings.current(), 1).plan is plan


def test_torchs_precision_switches_are_in_the_key_old_and_new(use_kernels):
    """Where the new ones were set torch refuses to say what the old ones are."""
    use_kernels(kernel("quick", FakePlan(9e6, seconds=1e-4)), kernel("slow", FakePlan(3e6, seconds=1e-3)))
    with pycv.use(autotune=True):
        chosen()
    switch, before = torch.backends.mkldnn.matmul, torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert chosen().basis == "predicted"
        torch.set_float32_matmul_precision(before)
        assert chosen().basis == "measured"
        switch.fp32_precision = "tf32"
        assert chosen().basis == "predicted"
    finally:
        torch.set_float32_matmul_precision(before)
        switch.fp32_precision = "none"


TEXTS = (
    "conv2d.forward n1c4h9w9 k8r3s3 p1 bias+relu", "conv2d.forward n1c4h9w9 k8r3s3 nhwc res=nhwc bias+residual+relu",
    "conv2d.grad_input n1c4h9w9 k8r3s3 u2 bias", "conv3d.grad_weight n1c4d5h5w5 k8t3r3s3",
    "conv1d.forward n1c4w9 k8s4 p2",
    "gemm.forward m5n6k7 a=col b=col bias", "gemm.forward b3m5n6k7 res=row residual+relu",
    "max_pool2d.forward n1c4h9w9 r3s3 u2 p1 indices", "max_pool2d.grad_input n1c4h9w9 r3s3 u2 p1 indices",
    "avg_pool2d.forward n1c4h9w9 r2s2 u2 nhwc", "adaptive_avg_pool2d.forward n1c4h9w9 o2",
    "adaptive_max_pool2d.forward n1c4h9w9 o2", "batch_norm.forward n2c4h5w5 training", "batch_norm.forward n2c4h5w5",
    "batch_norm.grad_input n2c4h5w5 training", "batch_norm.grad_input n2c4h5w5", "channel_sum.forward n2c4h5w5",
    "local_response_norm.forward n2c4h5w5 l3", "local_response_norm.grad_input n2c4h5w5 l3", "relu.forward e100",
    "relu.grad_input e100", "conv2d.forward n1c4h9w9 k8r3s3 f64", "conv2d.forward n0c4h9w9 k8r3s3",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_every_family_can_be_tuned(text, monkeypatch, tmp_path):
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(registry.autotune, "SECONDS", 0.005)
    problem = parse(text)
    with pycv.use(autotune=True):
        choice = registry.choose(problem, settings.current(), torch.get_num_threads())
    assert choice.basis == "measured"
    assert any(name.startswith("cpu:") for name in dict(choice.estimates))
    torchs_gradient_is_its_forwards = problem.pass_ != "forward" and not isinstance(problem, type(CONV))
    if not (torchs_gradient_is_its_forwards or problem.op == "channel_sum") or problem.op == "relu":
        assert "torch:torch" in dict(choice.estimates)
    assert isinstance(problem, PoolProblem) or choice.kernel.name in dict(choice.estimates)


def test_trials_do_not_follow_torchs_default_device(monkeypatch, tmp_path):
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    for text in ("conv2d.forward n1c4h9w9 k8r3s3 bias", "max_pool2d.grad_input n1c4h9w9 r3s3 indices"):
        with torch.device("meta"), pycv.use(autotune=True):
            choice = registry.choose(parse(text), settings.current(), 1)
        assert choice.basis == "measured" and all(seconds > 0 for _, seconds in choice.estimates)


def test_what_autotune_runs_stays_out_of_the_report():
    layer = pycv.nn.Conv2d(8, 8, 3).eval()
    with torch.no_grad(), pycv.use(autotune=True):
        rows = pycv.explain(layer, torch.randn(1, 8, 9, 10)).rows
    assert [row["op"] for row in rows] == ["conv2d.forward"]
    assert rows[0]["basis"] == "measured" and rows[0]["reason"].startswith("tuned: measured ")
    assert rows[0]["estimates"][rows[0]["kernel"]] == min(rows[0]["estimates"].values())


def test_plans_take_no_memory_and_little_time():
    """Every candidate of a miss is planned: a plan must not hold anything the size of a weight."""
    problem = parse("conv2d.forward n1c2048h9w9 k2048r3s3 p1")
    for each in registry.kernels("conv2d", "forward"):
        if each.backend != "numba" and each.plan is not None and each.supports(problem) is None:
            start = time.perf_counter()
            before = _resident()
            plans = [each.plan(problem, 2, 2**28) for _ in range(20)]
            assert _resident() - before < 20 * 2**20, each.name
            assert (time.perf_counter() - start) / len(plans) < 0.05, each.name


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
