"""Kernels in Cython: bytes in, spans and bytes out. No I/O, no logging."""
