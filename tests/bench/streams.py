"""The streams of a GPU where there is none: which is current, and which waited for which."""

from contextlib import contextmanager
from functools import cache

import torch

from pycv.bench import device


class Streams:
    """Takes the place of torch's; ``stream`` is the current one."""

    def __init__(self, monkeypatch):
        self.stream = Stream()
        fakes = {"Stream": Stream, "stream": self._entered, "set_stream": self._set, "current_stream": self._current}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(device, "_stream", cache(device._stream.__wrapped__))

    def _current(self):
        return self.stream

    def _set(self, stream):
        self.stream = stream

    @contextmanager
    def _entered(self, stream):
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before


class Stream:
    def __init__(self):
        self.awaited = []

    def wait_stream(self, other):
        self.awaited.append(other)
