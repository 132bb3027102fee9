"""Data, models and processors for the scripts that train vision-language models."""
