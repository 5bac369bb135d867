"""Tests of the Triton kernels beyond the op tests, which ``make test-triton`` runs on them in Triton's interpreter."""
