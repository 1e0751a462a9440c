"""Supervised fine-tuning, GRPO and the multitask baseline."""
