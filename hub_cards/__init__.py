"""Cards for models, datasets, pipelines and metrics, and pushing them to the Hub."""
