"""The native self-test: every C++ kernel between guard pages, without Python in between (see selftest.cpp)."""
