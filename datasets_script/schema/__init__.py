"""What travels between the folders: perceptions, pairs, images, predictions, and their columns."""
