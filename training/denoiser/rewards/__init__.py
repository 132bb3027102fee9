"""Rewards of images, by name."""
