"""Files that are truncated, damaged, too large or hostile are named and refused, or skipped where that is asked for."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from pycv import data
from pycv.data import archive, mnist
from pycv.data.transforms import Resize, ToTensor

from . import layouts

IMAGES, LABELS = layouts.pixels(20, 28, 28), np.arange(20) % 10
COLOURS = layouts.pixels(20, 32, 32, 3)

# ---------------------------------------------------------------------------------------------- IDX

WHOLE = layouts.idx(IMAGES)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (WHOLE[:10], "truncated: 10 bytes are too few for a header"),
        (WHOLE[:-1], r"truncated: 15679 of 15680 bytes of an array \(20, 28, 28\)"),
        (WHOLE + b"x", r"more bytes than its array \(20, 28, 28\) has"),
        (b"\x00\x00\x08\x01" + WHOLE[4:], "begins with 00000801"),
        (b"\x00\x00\x0d\x03" + WHOLE[4:], "begins with 00000d03"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 9), "announces an array"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx(contents, message, zipped, tmp_path):
    path = tmp_path / ("images.gz" if zipped else "images")
    path.write_bytes(gzip.compress(contents) if zipped else contents)
    with pytest.raises(data.DataError, match=f"{path}: {message}"):
        mnist.read_idx(path, 3)


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(WHOLE)
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # in the checksum at the end
    for contents in (whole[:2000], b"no gzip" + whole, bytes(damaged), whole[:20] + bytes(50) + whole[70:]):
        (tmp_path / "images.gz").write_bytes(contents)
        with pytest.raises(data.DataError, match=r"images\.gz"):
            mnist.read_idx(tmp_path / "images.gz", 3)


def test_images_and_labels_of_different_number(tmp_path):
    layouts.write_mnist(tmp_path, IMAGES, LABELS[:19])
    with pytest.raises(data.DataError, match="20 images but 19 labels"):
        data.create("mnist", tmp_path, verify=False)


def test_label_out_of_range(tmp_path):
    layouts.write_mnist(tmp_path, IMAGES, np.where(np.arange(20) == 7, 11, LABELS))
    with pytest.raises(data.DataError, match=r"train-images.*\[7\]: label 11 is out of range for 10 classes"):
        data.create("mnist", tmp_path, verify=False)


# ---------------------------------------------------------------------------------------------- CIFAR


def test_truncated_cifar(tmp_path):
    files = layouts.cifar10_files(COLOURS, LABELS, True)
    layouts.write_files(tmp_path, {**files, "data_batch_3.bin": files["data_batch_3.bin"][:-1]})
    with pytest.raises(data.DataError, match=r"data_batch_3\.bin: truncated: 12291 bytes"):
        data.create("cifar10", tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin"):
        data.create("cifar10", tmp_path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pickle.dumps({"data": Evil(), "labels": [0]}), r"the pickle names \w+\.system"),
        (b"\x80\x02cnumpy\nfromfile\n.", "the pickle names numpy.fromfile"),
        (b"\x80\x02cbuiltins\neval\n(U\x031+1tR.", "the pickle names builtins.eval"),
        (b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", "takes no arguments"),
        (b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.", "encoding"),
        (pickle.dumps([1, 2]), "holds a list, not a dictionary"),
        (pickle.dumps({"labels": [0]}), "its 'data' is no uint8 array"),
        (layouts.python3_pickle({"data": layouts.planes(COLOURS), "labels": [0]}), "its 'labels' is no list of 20"),
        (
            layouts.python3_pickle({"data": layouts.planes(COLOURS), "labels": [0] * 19 + [2**70]}),
            "its 'labels' is no list of 20 whole numbers of at most 31 bits",
        ),
        (layouts.cifar10_files(COLOURS, LABELS, False)["test_batch"][:-500], "test_batch: "),
        (b"", "Ran out of input"),
    ],
)
def test_cifar_pickles(batch, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layouts.write_files(tmp_path, {"test_batch": batch})
    with pytest.raises(data.DataError, match=f"test_batch: .*{message}|{message}"):
        data.create("cifar10", tmp_path, "test", verify=False)
    assert not (tmp_path / "evil").exists()


def test_truncated_cifar_archive(tmp_path):
    folder = "cifar-10-batches-bin"
    files = {f"{folder}/{name}": file for name, file in layouts.cifar10_files(COLOURS, LABELS, True).items()}
    path = layouts.write_tar(tmp_path / "cifar-10-binary.tar.gz", files, "w:gz")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(data.DataError, match=r"cifar-10-binary\.tar\.gz: "):
        data.create("cifar10", path, verify=False)


# ---------------------------------------------------------------------------------------------- images


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that announces, and has, many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


JPEG, PNG = (layouts.encoded(COLOURS[0].repeat(8, 0).repeat(8, 1), format) for format in ("JPEG", "PNG"))
DAMAGED = {
    "truncated.jpg": JPEG[: len(JPEG) // 2],
    "truncated.png": PNG[: len(PNG) // 2],
    "empty.png": b"",
    "text.jpg": b"<html>404 Not Found</html>",
    "flipped.png": PNG[:60] + bytes(len(PNG) - 60),
    "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",  # no format that starts a program
    "bomb.png": bomb(9000, 9000),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_images_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(data.CorruptImage, match=name):
        data.decode(tmp_path / name, str(tmp_path / name))
    with pytest.raises(data.CorruptImage, match="this one"):
        data.decode(DAMAGED[name], "this one")


def test_bombs_are_refused_before_they_are_decoded():
    with pytest.raises(data.CorruptImage, match=r"9000×9000 pixels are more than max_pixels=67108864"):
        data.decode(bomb(9000, 9000)[:200], "bomb")  # truncated: had decoding begun, that would be the message
    assert data.decode(bomb(64, 64), "small", "L", 4096).size == (64, 64)
    with pytest.raises(data.CorruptImage, match="max_pixels=4095"):
        data.decode(bomb(64, 64), "small", "L", 4095)


def test_a_line_of_pixels_that_would_be_resized_to_a_bomb():
    line = data.decode(bomb(65000, 1), "line")
    with pytest.raises(data.CorruptImage, match="65000×1 pixels would be resized to 16640000×256: at most 67108864"):
        Resize(256)(line, None)
    assert Resize(8)(line.crop((0, 0, 100, 1)), None).size == (800, 8)


def test_32_bits_per_pixel_are_refused():
    def tiff(*values):
        file = io.BytesIO()
        Image.fromarray(np.array([values], np.int32)).save(file, "TIFF")
        return file.getvalue()

    assert np.asarray(data.decode(tiff(0, 255, 256, 65535), "small", "L")).tolist() == [[0, 0, 1, 255]]
    for wide in (tiff(0, 70000), tiff(-1, 0)):
        with pytest.raises(data.CorruptImage, match="wide: 32-bit pixels have no defined range"):
            data.decode(wide, "wide", "L")


def test_missing_images_are_no_damage(tmp_path):
    """A disk that fails must not be taken for a data set with a few bad files."""
    with pytest.raises(FileNotFoundError):
        data.decode(tmp_path / "gone.png", "gone")


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_images_are_skipped_where_asked(workers, tmp_path):
    layouts.write_folder(tmp_path, layouts.pixels(10, 8, 8, 3), np.arange(10) % 2, ["cat", "dog"])
    (tmp_path / "cat" / "0002.png").write_bytes(DAMAGED["truncated.png"])
    dataset = data.create("folder", tmp_path)
    skipping = data.EvalLoader(dataset, 4, ToTensor(), on_corrupt="skip", workers=workers)
    batches = list(skipping)
    assert [len(batch.images) for batch in batches] == [3, 4, 2]
    assert torch_list(batches, "indices") == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [len(batch.skipped) for batch in batches] == [1, 0, 0]
    assert str(tmp_path / "cat" / "0002.png") in batches[0].skipped[0]
    with pytest.raises(data.CorruptImage, match=rf"^{tmp_path}/cat/0002\.png: [^\n]+$"):  # no traceback of a worker
        list(data.EvalLoader(dataset, 4, ToTensor(), workers=workers))
    with pytest.raises(ValueError, match="on_corrupt='ignore'"):
        data.EvalLoader(dataset, 4, ToTensor(), on_corrupt="ignore")


def test_a_batch_of_nothing_but_damage_is_refused(tmp_path):
    layouts.write_files(tmp_path, {"cat/a.png": b"", "cat/b.png": b""})
    dataset = data.create("folder", tmp_path)
    with pytest.raises(data.DataError, match=r"all 2 samples of a batch are damaged; the first: .*\.png"):
        list(data.TrainLoader(dataset, 2, ToTensor(), on_corrupt="skip"))
    with pytest.raises(data.DataError, match=r"all 2 samples are damaged; the first: .*a\.png"):
        list(data.EvalLoader(dataset, 1, ToTensor(), on_corrupt="skip"))


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_are_gone_are_named_and_never_skipped(workers, tmp_path):
    layouts.write_folder(tmp_path, layouts.pixels(4, 8, 8, 3), np.arange(4) % 2, ["cat", "dog"])
    dataset = data.create("folder", tmp_path)
    (tmp_path / "dog" / "0001.png").unlink()
    with pytest.raises(data.DataError, match=r"dog/0001\.png: no such file or directory$"):
        list(data.EvalLoader(dataset, 1, ToTensor(), on_corrupt="skip", workers=workers))


def torch_list(batches, field):
    return [int(value) for batch in batches for value in getattr(batch, field)]


# ---------------------------------------------------------------------------------------------- shards


def test_truncated_shards(tmp_path):
    layouts.write_shards(tmp_path, layouts.pixels(6, 6, 4, 3), np.arange(6) % 2, 6)
    shard = tmp_path / "train-0000.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        at_a_header = tar.getmember("00005.cls").offset
    for size in (at_a_header, at_a_header + 100, at_a_header + 512, at_a_header + 1600):
        shard.write_bytes(whole[:size])
        with pytest.raises(data.DataError, match=r"train-0000\.tar: "):
            data.create("shards", tmp_path)
        with pytest.warns(UserWarning, match=r"train-0000\.tar: .*its first [45] samples are used"):
            assert len(data.create("shards", tmp_path, on_corrupt="skip")) in (4, 5)
    shard.write_bytes(whole[:at_a_header] + b"\xff" * 512 + whole[at_a_header + 512 :])
    with pytest.raises(data.DataError, match=r"train-0000\.tar: "):
        data.create("shards", tmp_path)


def test_a_shard_of_which_nothing_is_left(tmp_path):
    """As a download leaves it that was broken off at once."""
    layouts.write_shards(tmp_path, layouts.pixels(6, 6, 4, 3), np.arange(6) % 2, 2)
    (tmp_path / "train-0001.tar").write_bytes(b"")
    with pytest.raises(data.DataError, match=r"train-0001\.tar: empty file"):
        data.create("shards", tmp_path)
    with pytest.warns(UserWarning, match=r"train-0001\.tar: empty file.*its first 0 samples are used"):
        assert len(data.create("shards", tmp_path, on_corrupt="skip")) == 4
    for shard in tmp_path.glob("*.tar"):
        shard.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(data.DataError, match="there is no sample"):
        data.create("shards", tmp_path, on_corrupt="skip")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": PNG}, r"shard\.tar:a: no label \(a\.cls\) among png"),
        ({"a.cls": b"0"}, r"shard\.tar:a: no image among cls"),
        ({"a.png": PNG, "a.cls": b"dog"}, "label b'dog' is no whole number"),
        ({"a.png": PNG, "a.cls": b"-1"}, "label -1 is out of range"),
        ({"a.png": PNG, "a.cls": b"99999999999999999999"}, r"shard\.tar:a: label 99999999999999999999 is out of range"),
        ({"a.png": PNG, "a.cls": b"300000000"}, r"shard\.tar:a: label 300000000 of 1 samples without classes\.txt"),
    ],
)
def test_shards_with_wrong_samples(files, message, tmp_path):
    layouts.write_tar(tmp_path / "shard.tar", files)
    with pytest.raises(data.DataError, match=message):
        data.create("shards", tmp_path, allow_empty=True)


def test_shards_that_are_no_plain_tar(tmp_path):
    layouts.write_tar(tmp_path / "shard.tar", {"a.png": PNG, "a.cls": b"0"}, "w:gz")
    with pytest.raises(data.DataError, match="shards are plain, whole tar files"):
        data.create("shards", tmp_path)


# ---------------------------------------------------------------------------------------------- archives


def tar_with(path, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("good.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"good"))
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname, bad.pax_headers = kind, target, {"path": name}
        tar.addfile(bad, io.BytesIO(b""))


HOSTILE = [
    ("../evil", tarfile.REGTYPE, "", "outside"),
    ("a/../../evil", tarfile.REGTYPE, "", "outside"),
    ("/tmp/evil", tarfile.REGTYPE, "", "outside"),
    ("C:/evil", tarfile.REGTYPE, "", "outside"),
    ("..\\evil", tarfile.REGTYPE, "", "outside"),
    ("C:", tarfile.REGTYPE, "", "outside"),
    ("", tarfile.REGTYPE, "", "names no file"),
    (".", tarfile.REGTYPE, "", "names no file"),
    ("a\0b", tarfile.REGTYPE, "", "names no file"),
    ("good.txt", tarfile.REGTYPE, "", "is there already"),
    ("good.txt/evil", tarfile.REGTYPE, "", "is there already"),
    ("good.txt/evil/more", tarfile.REGTYPE, "", "not a directory"),
    ("e" * 300, tarfile.REGTYPE, "", "file name too long"),
    ("evil", tarfile.SYMTYPE, "../../etc/passwd", "a link"),
    ("evil", tarfile.LNKTYPE, "good.txt", "a link"),
    ("evil", tarfile.CHRTYPE, "", "neither file nor folder"),
    ("evil", tarfile.FIFOTYPE, "", "neither file nor folder"),
]


@pytest.mark.parametrize(("name", "kind", "target", "message"), HOSTILE)
def test_hostile_archives_leave_nothing(name, kind, target, message, tmp_path):
    tar_with(tmp_path / "archive.tar", name, kind, target)
    with pytest.raises(data.DataError, match=message) as error:
        data.extract(tmp_path / "archive.tar", tmp_path / "out" / "put")
    assert repr(name) in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["archive.tar", "out"] or not any(
        (tmp_path / "out").iterdir()
    )
    assert not (tmp_path / "evil").exists()


def test_hostile_zip(tmp_path):
    for name, mode, message in (("../evil", 0o100644, "outside"), ("evil", 0o120777, "a link")):
        with zipfile.ZipFile(tmp_path / "archive.zip", "w") as zipped:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            zipped.writestr(info, "target")
        with pytest.raises(data.DataError, match=message):
            data.extract(tmp_path / "archive.zip", tmp_path / "out")
        assert not (tmp_path / "out").exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_sound_archives(kind, tmp_path):
    files = {"a/b/one.txt": b"1", "two.bin": bytes(range(256)) * 9}
    path = tmp_path / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, contents in files.items():
                zipped.writestr(name, contents)
    else:
        layouts.write_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
    out = data.extract(path, tmp_path / "out")
    assert {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()} == files
    assert archive.read(path, {"one.txt", "three"}) == {"one.txt": b"1"}
    with pytest.raises(FileExistsError):
        data.extract(path, out)
    with pytest.raises(FileNotFoundError, match="nothing"):
        data.extract(tmp_path / "nothing.tar", tmp_path / "other")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("where", ["contents", "checksum"])
def test_damaged_compression(kind, where, tmp_path):
    path = layouts.write_tar(tmp_path / f"a.tar.{kind}", {"noise": IMAGES.tobytes()}, f"w:{kind}")
    damaged = bytearray(path.read_bytes())
    at = {"contents": len(damaged) // 2, "checksum": len(damaged) - {"gz": 6, "bz2": 3, "xz": 30}[kind]}[where]
    damaged[at] ^= 0x40
    path.write_bytes(damaged)
    for attempt in (lambda: data.extract(path, tmp_path / "out"), lambda: archive.read(path, {"noise"})):
        with pytest.raises(data.DataError, match=rf"a\.tar\.{kind}: "):
            attempt()
    assert not (tmp_path / "out").exists()


def test_what_follows_the_last_member_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SLACK", 1000)
    path = layouts.write_tar(tmp_path / "a.tar", {"noise": IMAGES.tobytes()})
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(5_000_000)))
    with pytest.raises(data.DataError, match="after the last"):
        data.extract(bomb, tmp_path / "out")


def test_damaged_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("noise", IMAGES.tobytes())
    whole = path.read_bytes()
    method = whole.index(b"PK\1\2") + 10  # in the directory at the end
    unknown = whole[:method] + b"\x63\0" + whole[method + 2 :]
    offset = whole[:-6] + b"\xff\xff\xff\0" + whole[-2:]  # of that directory
    nameless = whole.replace(b"noise", b"\0oise")
    for damaged in (whole[:60] + bytes(200) + whole[260:], unknown, offset, nameless):
        path.write_bytes(damaged)
        with pytest.raises(data.DataError, match=r"a\.zip: "):
            data.extract(path, tmp_path / "out")


def test_bombs_and_truncated_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SLACK", 1000)
    bombs = layouts.write_tar(tmp_path / "bomb.tar.gz", {"zeros": bytes(1_000_000)}, "w:gz")
    with pytest.raises(data.DataError, match=r"unpacks to more than 100 times its size .at member 'zeros'"):
        data.extract(bombs, tmp_path / "out")
    whole = layouts.write_tar(tmp_path / "cut.tar.gz", {"noise": IMAGES.tobytes()}, "w:gz")
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(data.DataError, match=r"cut\.tar\.gz: "):
        data.extract(whole, tmp_path / "out")
    plain = layouts.write_tar(tmp_path / "plain.tar", {"one": b"1" * 700, "two": b"2"}).read_bytes()
    header = 512 + 1024  # of the second member: tarfile alone takes what is wrong there for the end
    for damaged in (plain[:header], plain[: header + 100], plain[:header] + b"\xff" * 512 + plain[header + 512 :]):
        (tmp_path / "plain.tar").write_bytes(damaged)
        with pytest.raises(data.DataError, match=r"plain\.tar: truncated or damaged after byte 1536"):
            data.extract(tmp_path / "plain.tar", tmp_path / "out")
    (tmp_path / "plain.tar").unlink()
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(data.DataError, match=r"text\.tar: "):
        data.extract(tmp_path / "text.tar", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bomb.tar.gz", "cut.tar.gz", "text.tar"]
