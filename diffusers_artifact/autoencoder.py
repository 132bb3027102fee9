"""Autoencoder of the embedded model, whose encoder projects image patches on their principal components."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn


def zero_(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a skip connection. The second starts at zero, so a new block is the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero_(self.conv2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.conv2(nn.functional.silu(self.conv1(nn.functional.silu(hidden_states))))


class AutoencoderPCA(ModelMixin, ConfigMixin):
    r"""
    Autoencoder of the embedded model, with the interface of [`~diffusers.AutoencoderKL`].

    The encoder is one strided convolution onto the leading principal components of `patch_size`×`patch_size` RGB
    patches, partly whitened. It sees nothing outside a patch, so latents of two photos can be mixed patch by patch.
    The decoder inverts that projection and adds a learned correction, trained on mixed latents, that hides the borders
    between patches. Encoding and decoding are deterministic.

    Args:
        latent_channels (`int`, *optional*, defaults to 16): Principal components kept.
        patch_size (`int`, *optional*, defaults to 4): Side of a patch, and the stride, in pixels.
        block_out_channels (`tuple[int]`, *optional*, defaults to `(24, 24, 80)`):
            The first entry is the width of the full-resolution refiner, the last that of the residual blocks at
            the latents' resolution. Pipelines derive the stride from this tuple's length, `2 ** (len - 1)`.
        layers_per_block (`int`, *optional*, defaults to 3): Number of residual blocks.
        scaling_factor (`float`, *optional*, defaults to 1.0): As in `AutoencoderKL`; the whitening is in the weights.
        shift_factor (`float`, *optional*, defaults to 0.0): As in `AutoencoderKL`.
        sample_size (`int`, *optional*, defaults to 256): Side in pixels of the training images.

    Raises:
        ValueError: `patch_size` does not fit `block_out_channels`.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        patch_size: int = 4,
        block_out_channels: tuple[int, ...] = (24, 24, 80),
        layers_per_block: int = 3,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        sample_size: int = 256,
    ):
        super().__init__()
        if patch_size != 2 ** (len(block_out_channels) - 1):
            raise ValueError(
                f"`patch_size` must be 2 ** (len(block_out_channels) - 1), got {patch_size} for "
                f"{len(block_out_channels)} entries in `block_out_channels`"
            )
        refiner, width = block_out_channels[0], block_out_channels[-1]
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size)
        self.inverse = nn.ConvTranspose2d(latent_channels, 3, patch_size, stride=patch_size)
        self.conv_in = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*[ResidualBlock(width) for _ in range(layers_per_block)])
        self.conv_out = nn.ConvTranspose2d(width, 3, patch_size, stride=patch_size)
        self.refiner = nn.Sequential(
            nn.Conv2d(3, refiner, 5, padding=2),
            nn.SiLU(),
            nn.Conv2d(refiner, refiner, 5, padding=2),
            nn.SiLU(),
            nn.Conv2d(refiner, 3, 5, padding=2),
        )
        zero_(self.conv_out)
        zero_(self.refiner[-1])

    @property
    def decoder_reach(self) -> int:
        """Latent pixels around a latent pixel that it changes in a decoded image, from the kernels of the layers."""

        def reach(*parts: nn.Module) -> int:
            layers = (layer for part in parts for layer in part.modules())
            return sum(layer.kernel_size[0] // 2 for layer in layers if isinstance(layer, nn.Conv2d))

        return reach(self.conv_in, self.blocks) + -(-reach(self.refiner) // self.config.patch_size)

    @torch.no_grad()
    def set_principal_components(self, mean: torch.Tensor, components: torch.Tensor, scale: torch.Tensor) -> None:
        r"""
        Set the encoder's weights, and the decoder's linear part to its pseudo-inverse.

        Args:
            mean (`torch.Tensor` of shape `(3, patch_size, patch_size)`): Mean patch of pixels in [-1, 1].
            components (`torch.Tensor` of shape `(latent_channels, 3, patch_size, patch_size)`): Orthonormal principal
                components.
            scale (`torch.Tensor` of shape `(latent_channels,)`): Factor of each latent channel (whitening).
        """
        self.encoder.weight.copy_(components * scale[:, None, None, None])
        self.encoder.get_parameter("bias").copy_(-(components * mean).sum((1, 2, 3)) * scale)
        self.inverse.weight.copy_(components / scale[:, None, None, None])
        # The mean patch is one colour up to noise, because photos do not depend on where patches begin.
        self.inverse.get_parameter("bias").copy_(mean.mean((1, 2)))

    @apply_forward_hook
    def encode(
        self, x: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        r"""
        Encode images.

        Args:
            x (`torch.Tensor` of shape `(batch, 3, height, width)`): Images in [-1, 1].
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.

        Returns:
            [`~diffusers.models.modeling_outputs.AutoencoderKLOutput`] or `tuple`: a distribution of zero variance over
            latents of shape `(batch, latent_channels, height / patch_size, width / patch_size)`.
        """
        mean = self.encoder(x)
        posterior = DiagonalGaussianDistribution(
            torch.cat([mean, torch.full_like(mean, -30.0)], dim=1), deterministic=True
        )
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        r"""
        Decode latents.

        Args:
            z (`torch.Tensor` of shape `(batch, latent_channels, height, width)`): Latents.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object.
            generator (`torch.Generator`, *optional*): Unused; part of `AutoencoderKL`'s interface.

        Returns:
            [`~diffusers.models.autoencoders.vae.DecoderOutput`] or `tuple`: images of shape
            `(batch, 3, patch_size * height, patch_size * width)`, about in [-1, 1] but not clamped.
        """
        sample = self.inverse(z) + self.conv_out(self.blocks(self.conv_in(z)))
        sample = sample + self.refiner(sample)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """Encode and decode `sample`, images of shape `(batch, 3, height, width)` in [-1, 1]."""
        return self.decode(self.encode(sample, return_dict=False)[0].mode(), return_dict=return_dict)
