"""Evaluation: lm-eval tasks on local rows, language-model backends, scorers and score records."""
