"""Annotation of images by people: a queue that several of them share, agreement between them, and exports."""
