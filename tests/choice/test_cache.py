"""The choice cache on disk: what is stored comes back, and nothing that lies there breaks anything."""

import json
import multiprocessing
import threading
import time
import warnings

import pytest

from pycv.choice import cache, device, files

ENTRY = cache.Entry("cpu:x", {"cpu:x": 1e-3, "torch:torch": 2e-3})


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path / "deep"))
    return tmp_path / "deep"


def test_entries_come_back_here_and_from_the_file():
    assert cache.lookup("a") is None
    cache.store("a", ENTRY)
    cache.store("b", ENTRY)
    assert cache.lookup("a") == ENTRY
    cache._loaded.clear()
    assert cache.entries() == {"a": ENTRY, "b": ENTRY}


def test_what_another_process_writes_is_seen():
    cache.store("a", ENTRY)
    value = json.loads(cache.path().read_text())
    value["entries"]["elsewhere"] = value["entries"]["a"]
    files.write(cache.path(), value)
    assert cache.lookup("elsewhere") == ENTRY


def spoiled_files():
    good = {"identity": cache._identity(), "kernels": device.kernel_hash(), "entries": {}}
    entry = {"kernel": "cpu:x", "seconds": {"cpu:x": 1e-3}}
    yield "{"
    yield "[]"
    yield '"text"'
    yield "\x00\xff"
    yield "[" * 100_000
    for change in (
        {"identity": {**cache._identity(), "torch": "0.1"}},
        {"kernels": None},
        {"entries": []},
        {"entries": {"a": 3}},
        {"entries": {"a": {**entry, "extra": 1}}},
        {"entries": {"a": {**entry, "kernel": "cpu:y"}}},
        {"entries": {"a": {**entry, "seconds": {"cpu:x": "fast"}}}},
        {"entries": {"a": {**entry, "seconds": {"cpu:x": -1.0}}}},
    ):
        yield json.dumps(good | change)
    for name in good:
        yield json.dumps({key: value for key, value in good.items() if key != name})


def test_a_corrupt_or_foreign_file_is_a_warning_that_names_it_and_is_ignored():
    cache.path().parent.mkdir(parents=True)
    for text in spoiled_files():
        cache.path().write_text(text)
        with pytest.warns(UserWarning, match=f"{cache.path().name} is ignored.* renamed to {cache.path().name}.bad"):
            assert cache.lookup("a") is None, text
        assert not cache.path().exists()
        assert cache.path().with_name(f"{cache.path().name}.bad").read_text() == text
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert cache.lookup("a") is None  # said once
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cache.store("a", ENTRY)  # and replaced by a good one
        assert cache.lookup("a") == ENTRY


def test_a_good_file_that_came_in_between_is_not_set_aside():
    """A reader finds a bad file; before it moves it, a writer has replaced it."""
    cache.store("a", ENTRY)
    assert files._set_aside(cache.path(), cache._check) is None
    cache._loaded.clear()
    assert cache.lookup("a") == ENTRY
    assert [path.suffix for path in sorted(cache.path().parent.iterdir())] == [".json", ".lock"]


def _spoil_and_read(seconds: float) -> None:
    """Bad files again and again, among those who write good ones."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        cache.path().write_text("{")
        cache.lookup("a")


@pytest.mark.filterwarnings("ignore:.* is ignored")
def test_writers_survive_one_who_spoils_the_file(directory):
    cache.store("first", ENTRY)
    spoiler = threading.Thread(target=_spoil_and_read, args=(0.3,))
    spoiler.start()
    number = 0
    while spoiler.is_alive():
        cache.store(f"key {number}", ENTRY)
        number += 1
    spoiler.join()
    cache.store("last", ENTRY)
    cache._loaded.clear()
    assert cache.lookup("last") == ENTRY and not list(directory.glob("*.tmp"))


def test_other_kernels_forget_silently(monkeypatch):
    cache.store("a", ENTRY)
    cache._loaded.clear()
    monkeypatch.setattr(device, "kernel_hash", lambda: "other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.lookup("a") is None
        cache.store("b", ENTRY)
    assert set(cache.entries()) == {"b"}


def test_the_cache_stays_bounded(monkeypatch, directory):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 3)
    monkeypatch.setattr(cache, "MAX_FILES", 2)
    for name in "abcde":
        cache.store(name, ENTRY)
    assert list(cache.entries()) == ["c", "d", "e"]
    for number in range(5):
        (directory / f"choices-{number}.json").write_text("{}")
    cache.store("f", ENTRY)
    assert len(list(directory.glob("choices-*.json"))) == 3 and cache.lookup("f") == ENTRY


def test_a_directory_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written"):
        cache.store("a", ENTRY)
    assert cache.lookup("a") is None


def test_clear_removes_the_files_and_what_was_read(directory):
    cache.store("a", ENTRY)
    (directory / "machine-1.json").write_text("{}")
    assert cache.clear() == [cache.path()]
    assert cache.lookup("a") is None and cache.clear() == []
    assert [path.name for path in directory.iterdir()] == ["machine-1.json"]


def test_a_lock_is_of_one_alone_while_others_clear(directory):
    inside, most = [], []

    def enter():
        for _ in range(100):
            with files.locked(cache.path()):
                inside.append(1)
                time.sleep(1e-4)
                most.append(len(inside))
                inside.pop()

    def clear():
        while any(worker.is_alive() for worker in workers):
            files.remove(cache.path())

    workers = [threading.Thread(target=enter) for _ in range(3)]
    for thread in (*workers, clearing := threading.Thread(target=clear)):
        thread.start()
    for thread in (*workers, clearing):
        thread.join()
    assert most == [1] * 300


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(directory):
    cache.store("a", ENTRY)
    with pytest.raises(ValueError):
        files.write(cache.path(), {"not": float("nan")})
    cache._loaded.clear()
    assert cache.lookup("a") == ENTRY
    assert not list(directory.glob("*.tmp"))


def test_the_directory_is_the_platforms(monkeypatch):
    monkeypatch.delenv("PYCV_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setattr(files.sys, "platform", "linux")
    assert str(files.cache_dir()) == "/x/pycv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_dir().parts[-2:] == (".cache", "pycv")
    monkeypatch.setattr(files.sys, "platform", "darwin")
    assert files.cache_dir().parts[-3:] == ("Library", "Caches", "pycv")


def _store_some(number):
    for i in range(15):
        cache.store(f"{number}-{i}", ENTRY)


def test_threads_that_store_at_once_lose_nothing():
    threads = [threading.Thread(target=_store_some, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.entries()) == 60


def test_processes_that_store_at_once_lose_nothing():
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_store_some, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(cache.entries()) == 60
