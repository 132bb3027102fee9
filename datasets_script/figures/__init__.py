"""Sheets, charts and drawings of detections in one style."""
