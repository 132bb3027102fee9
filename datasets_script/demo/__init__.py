"""The demo: photos from installed packages, their annotations, and its settings."""
