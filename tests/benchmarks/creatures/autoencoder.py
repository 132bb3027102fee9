"""The generator's autoencoder: the embedded model's class, fitted to renders.

Principal components are fitted in seconds, so that the transformer's training can start; the decoder's correction is
trained afterwards. It sees latents with noise, because the transformer's are never exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from diffusers_artifact.autoencoder import AutoencoderPCA
from training.embedded.autoencoder import fit_principal_components, psnr, reconstruction_loss, to_tensor


CONFIG = {
    "latent_channels": 16,
    "patch_size": 4,
    "block_out_channels": (16, 24, 48),
    "layers_per_block": 2,
    "sample_size": 64,
}
# Less than for photos: most of the variance is in the components that say where parts are.
WHITENING = 0.5
NOISE = 0.2  # largest standard deviation
LEARNING_RATE, BATCH, WARMUP = 2e-3, 32, 50
_FITTED = 1000  # images; more do not change the components


def fit_encoder(images: np.ndarray, seed: int = 0) -> AutoencoderPCA:
    """
    Make an autoencoder whose encoder and linear decoder are the images' principal components.

    Args:
        images (`np.ndarray` of shape `(batch, 64, 64, 3)`, `uint8`): Renders.
        seed (`int`, *optional*, defaults to 0): Seed of the decoder's weights.
    """
    torch.manual_seed(seed)
    model = AutoencoderPCA(**CONFIG)
    fit_principal_components(model, to_tensor(images[:_FITTED]), WHITENING)
    return model.requires_grad_(False)


def train_decoder(
    model: AutoencoderPCA,
    images: np.ndarray,
    steps: int,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """
    Train all but the encoder in place.

    Args:
        model (`AutoencoderPCA`): Result of [`fit_encoder`].
        images (`np.ndarray` of shape `(batch, 64, 64, 3)`, `uint8`): Renders.
        steps (`int`): Number of steps.
        seed (`int`, *optional*, defaults to 0): Seed of batches and noise.
        report (`Callable[[int, float], None]`, *optional*): Called with step and loss after each step.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = [p for name, p in model.named_parameters() if not name.startswith("encoder")]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP) * (1 - step / steps)
        batch = to_tensor(images[torch.randint(len(images), (BATCH,), generator=generator).numpy()])
        loss = reconstruction_loss(model.decode(_noisy_latents(model, batch, generator)).sample, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        report(step + 1, loss.item())
    model.requires_grad_(False)


def _noisy_latents(model: AutoencoderPCA, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    latents = model.encoder(images)
    strength = NOISE * torch.rand(len(images), 1, 1, 1, generator=generator)
    return latents + strength * torch.randn(latents.shape, generator=generator)


def quality(model: AutoencoderPCA, images: np.ndarray) -> float:
    """Compute the mean PSNR of round trips in dB."""
    return psnr(model, to_tensor(images))
