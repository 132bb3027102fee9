"""Datasets of pairs: storage, views for training, exports and reports."""
