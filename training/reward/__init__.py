"""What the training of a reward model is made of."""
