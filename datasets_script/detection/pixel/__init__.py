"""Detectors that give every pixel of an image a probability of being part of an artifact."""
