"""Edits that people make to a dataset: a layer in a file beside the data, which itself stays as it is."""
