"""The goals of the CPU kernels: `python -m benchmarks.cpu` measures every row."""
