"""Compare folders of images, pair by pair: scores with paired intervals, and pictures."""
