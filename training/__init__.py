"""Recipes that train the models and recompute their figures; run from the repository's root, not installed."""
