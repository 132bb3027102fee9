"""Weights are moved to aligned addresses, and nothing else about them changes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diffusers_artifact.alignment import align_weights

from ..helpers.odd_addresses import move_weights, offsets


class Weights(nn.Module):
    """A weight that two layers share, one in bfloat16, one that is transposed, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight
        self.half_precision = nn.Parameter(torch.randn(7, 3, dtype=torch.bfloat16))
        self.transposed = nn.Parameter(torch.randn(4, 6).T)
        self.register_buffer("mean", torch.randn(3))


@pytest.mark.parametrize("offset", [8, 24, 56])
def test_values_and_identities_stay(offset):
    model, expected = Weights(), Weights().state_dict()
    before = dict(model.named_parameters())
    move_weights(model, offset)
    assert offsets(model) == {offset}
    assert align_weights(model) == sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    assert offsets(model) == {0} and align_weights(model) == 0
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert model.second.weight is model.first.weight


def test_weights_mapped_from_a_file_are_aligned(tmp_path):
    save_file({"weight": torch.ones(64, 64)}, tmp_path / "w")
    layer = nn.Linear(64, 64, bias=False)
    layer.load_state_dict(load_file(tmp_path / "w"), assign=True)
    align_weights(layer)
    assert offsets(layer) == {0} and layer.weight.eq(1).all()


def test_weights_without_an_address_stay():
    with torch.device("meta"):
        layer = nn.Linear(3, 3)
    assert align_weights(layer) == 0 and layer.weight.is_meta
    sparse = nn.Module()
    sparse.register_buffer("weight", torch.eye(3).to_sparse())
    assert align_weights(sparse) == 0 and sparse.weight.is_sparse
