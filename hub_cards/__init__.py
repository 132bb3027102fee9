"""Cards for models, data sets, pipelines and metrics, and pushing them to the Hub."""
