"""Training of pixel detectors: mixtures of labelled images, augmentation, losses, base models and metrics."""
