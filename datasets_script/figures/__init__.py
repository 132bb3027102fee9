"""Draw sheets, charts and detections in one style."""
