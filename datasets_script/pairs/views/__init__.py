"""Conversions of pairs to rows for other tasks, one module each: images, masks and conversations."""
