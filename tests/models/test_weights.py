"""Weight files: what is loaded, what is said about what is not, and fetching them over a connection that misbehaves."""

import hashlib
import http.server
import re
import sys
import threading
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import nn as torch_nn

from pycv import models, nn
from pycv.models import download, published


@pytest.fixture(autouse=True)
def no_unexpected_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def same(model, state) -> bool:
    own = model.state_dict()
    return list(own) == list(state) and all(torch.equal(own[key], state[key]) for key in own)


def saved(state, path):
    torch.save(state, path)
    return path


# ----------------------------------------------------------------------------------------------------- files


def test_pth_and_safetensors(tmp_path):
    from safetensors.torch import save_file

    state = models.create("lenet5").state_dict()
    named = [tmp_path / "lenet.safetensors", tmp_path / "LENET.SAFETENSORS"]
    for path in named:
        save_file(state, path)
    for path in (saved(state, tmp_path / "lenet.pth"), *named):
        assert same(models.create("lenet5", weights=path), state)
        assert same(models.create("lenet5", weights=str(path)), state)


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_checkpoints_of_data_parallel_training(tmp_path, name):
    state = models.create("lenet5").state_dict()
    for prefix in ("_orig_mod.", "_orig_mod.module.", "module._orig_mod."):
        wrapped = {prefix + key: value for key, value in state.items()}
        assert same(models.create("lenet5", weights=saved(wrapped, tmp_path / "wrapped.pth")), state)
    inner = {f"module.{key}": value for key, value in state.items()}
    assert same(models.create("lenet5", weights=saved({name: inner, "epoch": 3}, tmp_path / "c.pth")), state)


def test_state_dicts_that_cannot_be_loaded(tmp_path):
    state = models.create("lenet5").state_dict()
    path = saved(dict(enumerate(state.values())), tmp_path / "numbered.pth")
    with pytest.raises(ValueError, match=r"numbered\.pth: expected a state_dict, tensors by name, but a key is 0"):
        models.create("lenet5", weights=path)
    path = saved(state | {"c1.bias": state["c1.bias"] + 1j}, tmp_path / "complex.pth")
    with pytest.raises(ValueError, match=r"complex\.pth: c1\.bias is complex"):
        models.create("lenet5", weights=path)


def test_another_number_of_classes_keeps_the_backbone(tmp_path):
    path = saved(models.create("lenet5").state_dict(), tmp_path / "lenet.pth")
    with pytest.warns(UserWarning, match=r"the head was not loaded.*output.weight \(10×84 in the file, 3×84 here\)"):
        model = models.create("lenet5", num_classes=3, weights=path)
    state = torch.load(path, weights_only=True)
    assert torch.equal(model.c1.weight, state["c1.weight"]) and model.output.weight.shape == (3, 84)
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


def test_models_that_end_in_no_layer_of_classes(tmp_path):
    """All of it must agree: there is no head that might be left."""
    for model in (models.create("lenet5_original"), torch_nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))):
        state = {key: value + 1 for key, value in model.state_dict().items()}
        assert same(models.load_weights(model, saved(state, tmp_path / "all.pth")), state)
        key = next(key for key in reversed(state) if state[key].dim())
        with pytest.raises(RuntimeError, match=f"size mismatch for {key}"):
            models.load_weights(model, saved(state | {key: torch.zeros(7)}, tmp_path / "other.pth"))


class Small(torch_nn.Module):
    """A backbone, a classifier, and another one in the middle."""

    def __init__(self, num_classes: int = 5, aux: bool = True) -> None:
        super().__init__()
        self.body = torch_nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.aux1 = torch_nn.Sequential(nn.Linear(4, 4), nn.Linear(4, num_classes)) if aux else None
        self.fc = nn.Linear(4, num_classes)


def test_auxiliary_heads(tmp_path):
    """Left out where the model has none; with another number of classes both classifiers are not loaded."""
    state = Small().state_dict()
    path = saved(state, tmp_path / "small.pth")
    model = models.load_weights(Small(aux=False), path)
    assert torch.equal(model.fc.weight, state["fc.weight"])
    with pytest.warns(UserWarning, match=r"fc\.weight.*fc\.bias.*aux1\.1\.weight.*aux1\.1\.bias"):
        model = models.load_weights(Small(3), path)
    assert torch.equal(model.aux1[0].weight, state["aux1.0.weight"]) and model.fc.weight.shape == (3, 4)
    with pytest.raises(RuntimeError, match="missing in it: aux1"):
        models.load_weights(Small(), saved(Small(aux=False).state_dict(), path))


def test_files_from_before_batch_normalisation_counted(tmp_path):
    state = {key: value for key, value in Small().state_dict().items() if "num_batches" not in key}
    model = models.load_weights(Small(), saved(state, tmp_path / "old.pth"))
    assert torch.equal(model.fc.weight, state["fc.weight"])


def test_missing_and_unexpected_keys_are_named_and_nothing_is_loaded(tmp_path):
    model = models.create("lenet5")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items()}
    state["extra.weight"] = state.pop("c3.weight")
    with pytest.raises(RuntimeError, match=r"bad.pth.*missing in it: c3.weight; unexpected in it: extra.weight"):
        models.load_weights(model, saved(state, tmp_path / "bad.pth"))
    state["c3.weight"] = torch.zeros(16, 6, 3, 3)
    with pytest.raises(RuntimeError, match=r"bad.pth(?s:.*)extra.weight(?s:.*)size mismatch for c3.weight"):
        models.load_weights(model, saved(state, tmp_path / "bad.pth"))
    state["extra.weight"] = state.pop("c1.bias")
    with pytest.raises(RuntimeError, match=r'"c1.bias"(?s:.*)"extra.weight"(?s:.*)size mismatch for c3.weight'):
        models.load_weights(model, saved(state, tmp_path / "bad.pth"))
    assert same(model, before)


def test_many_missing_keys_are_counted(tmp_path):
    with pytest.raises(RuntimeError, match=r"conv1.weight, .* and 82 more; unexpected in it: x$"):
        models.create("resnet18", weights=saved({"x": torch.zeros(1)}, tmp_path / "x.pth"))


def test_old_names_of_densenet(tmp_path):
    """Published files say norm.1 where today's keys say norm1."""
    model = models.DenseNet(4, (1, 1), 8)
    old = {re.sub("(norm|conv)([12])", r"\1.\2", key): torch.ones(v.shape) for key, v in model.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    models.load_weights(model, saved(old, tmp_path / "old.pth"))
    assert model.features.denseblock1.denselayer1.conv2.weight.eq(1).all()


@pytest.mark.parametrize("content", [b"", b"not a file of weights", b"\x80\x02cos\nsystem\n."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_no_file_of_weights(tmp_path, content, suffix):
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.\w+: no "):
        models.create("lenet5", weights=path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], torch.zeros(1)])
def test_what_holds_no_weights(tmp_path, content):
    with pytest.raises(ValueError, match="expected a state_dict"):
        models.create("lenet5", weights=saved(content, tmp_path / "x.pth"))


def test_a_file_cannot_run_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "was here"), "w"))

    with pytest.raises(ValueError, match=r"no file of weights alone \(Unsupported global: GLOBAL \w*\.open[^.\n]*\)$"):
        models.create("lenet5", weights=saved({"x": Payload()}, tmp_path / "x.pth"))
    assert not (tmp_path / "was here").exists()


def test_missing_file_and_missing_library(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        models.create("lenet5", weights=tmp_path / "nowhere.pth")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'pycv\[safetensors\]'"):
        models.create("lenet5", weights=tmp_path / "x.safetensors")


# ------------------------------------------------------------------------------------------------- downloads


class Server:
    """A local server of one file. ``cuts``: after how many bytes each connection in turn breaks off."""

    def __init__(self, content: bytes, ranges: bool = True, cuts: tuple[int, ...] = (), status: int = 200) -> None:
        self.content, self.ranges, self.cuts, self.status = content, ranges, list(cuts), status
        self.asked: list[str | None] = []  # the Range of every request

    @contextmanager
    def running(self):
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}/"
            finally:
                server.shutdown()
                thread.join()

    def _handler(server):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers["Range"]
                server.asked.append(asked)
                if server.status != 200:
                    return self.send_error(server.status)
                start = int(asked[len("bytes=") : -1]) if asked and server.ranges else 0
                if asked and server.ranges and start >= len(server.content):
                    return self.send_error(416)
                rest = server.content[start:]
                self.send_response(206 if asked and server.ranges else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)

            def log_message(self, *arguments):
                pass

        return Handler


CONTENT = bytes(range(256)) * 20
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path / "cache"))


def fetched(server: Server, tmp_path, sha256: str = HASH[:8]):
    with server.running() as url:
        return download.fetch(url + "file.pth", tmp_path / "there" / "file.pth", sha256)


def names(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "there").iterdir())


def test_download_is_announced_checked_and_not_repeated(tmp_path, capsys):
    server = Server(CONTENT)
    path = fetched(server, tmp_path)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["file.pth"]
    announced = capsys.readouterr().err
    assert "file.pth (0.0 MB) to " in announced and str(path) in announced
    assert fetched(server, tmp_path) == path and len(server.asked) == 1
    assert not capsys.readouterr().err


def test_transfer_that_breaks_off_is_gone_on_with(tmp_path):
    server = Server(CONTENT, cuts=(1000, 700))
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=1700-"]


def test_transfer_that_breaks_off_again_and_again_goes_on_at_the_next_call(tmp_path, capsys):
    with pytest.raises(ConnectionError, match=r"broke off 3 times; 300 bytes are kept in .*file.pth.part"):
        fetched(Server(CONTENT, cuts=(100, 100, 100)), tmp_path)
    assert names(tmp_path) == ["file.pth.part"]
    server = Server(CONTENT)
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300-"] and "of them are here already" in capsys.readouterr().err
    assert names(tmp_path) == ["file.pth"]


def test_server_without_ranges_starts_over(tmp_path):
    server = Server(CONTENT, ranges=False, cuts=(1000,))
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


def test_part_that_was_complete_and_part_of_another_file(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file.pth.part").write_bytes(CONTENT)
    server = Server(CONTENT)
    assert fetched(server, tmp_path).read_bytes() == CONTENT and server.asked == [f"bytes={len(CONTENT)}-"]
    (tmp_path / "there" / "file.pth").unlink()
    (tmp_path / "there" / "file.pth.part").write_bytes(b"something else")
    server = Server(CONTENT)
    assert fetched(server, tmp_path).read_bytes() == CONTENT and server.asked == ["bytes=14-", None]


def test_wrong_hash_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"does not begin with 00000000.*not the published file"):
        fetched(Server(CONTENT), tmp_path, "00000000")
    assert names(tmp_path) == []


def test_wrong_file_at_the_destination_is_left(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file.pth").write_bytes(b"mine")
    server = Server(CONTENT)
    with pytest.raises(ValueError, match="remove it"):
        fetched(server, tmp_path)
    assert (tmp_path / "there" / "file.pth").read_bytes() == b"mine" and not server.asked


def test_refusal_and_no_connection(tmp_path):
    with pytest.raises(ConnectionError, match="the server answers 404 Not Found"):
        fetched(Server(CONTENT, status=404), tmp_path)
    with Server(CONTENT).running() as url:
        pass  # nobody listens there now
    with pytest.raises(
        ConnectionError, match=r"cannot be reached .* put it at .*file.pth, or give its path as weights="
    ):
        download.fetch(url + "file.pth", tmp_path / "there" / "file.pth", HASH)
    assert names(tmp_path) == []


def test_several_at_once_fetch_once(tmp_path):
    server = Server(CONTENT)
    found = []
    with server.running() as url:
        fetch = lambda: found.append(download.fetch(url + "f.pth", tmp_path / "f.pth", HASH).read_bytes())  # noqa: E731
        threads = [threading.Thread(target=fetch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [CONTENT] * 4 and len(server.asked) == 1


# ------------------------------------------------------------------------------------------------- published


def test_published_weights(tmp_path, monkeypatch):
    state = models.create("lenet5").state_dict()
    content = saved(state, tmp_path / "x.pth").read_bytes()
    name = f"lenet5-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(published.FILES, "lenet5", name)
    monkeypatch.setitem(published.ARGUMENTS, "lenet5", {"padding": 2})
    server = Server(content)
    with server.running() as url:
        monkeypatch.setattr(published, "BASE_URL", url)
        model = models.create("lenet5", weights="imagenet")
        assert same(model, state) and model.c1.padding == (2, 2)
        assert models.create("lenet5", weights="imagenet", padding=0).c1.padding == (0, 0)
    assert len(server.asked) == 1 and (tmp_path / "torch" / "hub" / "checkpoints" / name).exists()


def test_table_of_published_files():
    assert set(published.FILES) <= set(models.list_models()) and set(published.ARGUMENTS) <= set(published.FILES)
    assert len(set(map(published.sha256_of, published.FILES.values()))) == len(published.FILES)
    with pytest.raises(ValueError, match=r"torchvision publishes no file for zfnet, only for alexnet, densenet121"):
        models.create("zfnet", weights="imagenet")


@pytest.mark.parametrize("name", ["ImageNet", "IMAGENET1K_V1"])
def test_published_weights_by_another_name(name):
    with pytest.raises(ValueError, match=rf"weights='{name}': there is no such file; published weights are 'imagenet'"):
        models.create("resnet18", weights=name)
