"""Fused CPU kernels: small compiled functions on cache-sized float32 blocks, the building blocks of every method's `kernel`."""
