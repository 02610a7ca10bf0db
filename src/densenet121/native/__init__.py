"""C++ kernels with their Python bindings."""
