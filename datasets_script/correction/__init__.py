"""Correct images: find artifacts, draw their regions again, and ask again within them."""
