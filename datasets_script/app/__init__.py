"""The app in the browser: make artifacts by hand and annotate images. A door: only the command line imports it."""
