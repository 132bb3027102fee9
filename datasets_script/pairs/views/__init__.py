"""Rows of pairs as rows for other uses, one file each: images to detect in, masks to segment, conversations."""
