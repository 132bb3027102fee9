"""Sources of labelled images, one module each, which read into the same rows."""
