"""pytest-benchmark suites over the problem sets of `pycv bench`."""
