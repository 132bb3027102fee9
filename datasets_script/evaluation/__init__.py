"""Evaluation of models on benchmarks: predictions, scores and reports."""
