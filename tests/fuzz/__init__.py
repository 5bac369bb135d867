"""The fuzzer: random problems over every op, algorithm and layout, on raw memory, against the reference.

    python -m tests.fuzz --n 100000 --seed 7          draw problems
    python -m tests.fuzz --problem "..." --algorithm direct   repeat one

With PYCV_CUDA_HOST=1 the CUDA kernels are drawn for, executed by this CPU; with PYCV_TEST_DEVICE=cuda, on the GPU.

A mismatch is shrunk to one small problem, printed as the second command.
"""
