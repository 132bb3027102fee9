"""Metrics as functions of arrays and strings, which the `evaluate` modules beside this folder wrap."""
