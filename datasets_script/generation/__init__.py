"""Draw images from prompts, one for each or the best of many."""
