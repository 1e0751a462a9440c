"""Weights of merged models on a disk that is too small for all of them: dropped once scored, made again where needed."""
