"""Merge domain-specialised language models and measure the result, as in MergeBench (NeurIPS 2025)."""

__version__ = "0.1.0"
