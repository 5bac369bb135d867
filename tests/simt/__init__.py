"""The runtime that executes CUDA sources on the CPU (csrc/simt), and the headers that kernels stand on."""
