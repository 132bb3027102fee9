"""Published benchmarks of artifacts, converted from their own layouts to one schema."""
