"""What is freed while a command measures is there for the next result."""

import subprocess
import sys

import pytest

HEAP = """
import ctypes, sys
from pycv.bench import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "kept":
    memory.keep_freed()
for _ in range(2):  # glibc maps the first results, and takes the next ones of their size from its heap
    results = [libc.malloc(20 * 2**20) for _ in range(8)]
    end = libc.sbrk(0)
    for result in results:
        libc.free(result)
print(end - libc.sbrk(0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_the_heap_keeps_what_was_freed():
    def given_back(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", HEAP, how], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert given_back("kept") == 0
    assert given_back("as usual") > 2**26, "malloc gives nothing back here: keep_freed() has nothing to do"
