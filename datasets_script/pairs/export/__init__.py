"""Pairs for trainers that want another format than Parquet, one file a format."""
