"""Curation: measure what an injection did to an image, judge it, and describe it."""
