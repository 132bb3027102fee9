"""Train and measure the embedded diffusion model."""
