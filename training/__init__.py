"""Recipes that train the models of this project and recompute their figures, and the scripts that run them."""
