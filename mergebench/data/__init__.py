"""Datasets: where they come from, what their rows look like, and how a stage prepares them."""
