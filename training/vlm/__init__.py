"""Data, models and processors behind the scripts that train vision-language models."""
