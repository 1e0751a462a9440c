"""Merging: methods that turn task vectors into directions, and the engine that runs them over checkpoints."""
