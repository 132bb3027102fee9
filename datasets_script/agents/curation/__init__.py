"""Curation: measuring what an injection did to an image, judging it, and putting it into words."""
