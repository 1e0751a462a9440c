"""Calibration statistics of one specialist on its own domain: Fisher information, Gram matrices, masks."""
