"""Publish models, datasets, pipelines and metrics on the Hub, with generated cards."""
