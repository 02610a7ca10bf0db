"""C++ kernels, each with its binding."""
