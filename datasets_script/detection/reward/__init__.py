"""Reward models: one score of an image, higher for fewer artifacts."""
