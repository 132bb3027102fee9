"""The demo: photos taken from installed packages, their annotations, and the settings that suit them."""
