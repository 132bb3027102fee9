"""Export of pairs to other formats than Parquet, one module per format."""
