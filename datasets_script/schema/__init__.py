"""Types that travel between folders: perceptions, pairs, images, predictions, and their columns."""
