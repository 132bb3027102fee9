"""Similarities between places find a twin, look past neighbours and padding, and pass gradients."""

from __future__ import annotations

import pytest
import torch

from datasets_script.detection.reward.self_similarity import QUANTILES, percentiles, self_similarity
from tests.helpers.tiny_rewards import tiny_reward


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_twin_is_found_at_both_places():
    tokens, inside = noise(2, 24, 16, 24), torch.ones(2, 16, 24, dtype=torch.bool)
    tokens[0, :, 3, 4] = tokens[0, :, 12, 20]
    alike = self_similarity(tokens, inside)
    places = alike[0].flatten().topk(2).indices.tolist()
    assert sorted(places) == [3 * 24 + 4, 12 * 24 + 20]
    assert alike[0].max() > alike[1].max() + 3


def test_neighbours_and_padding_are_no_twins():
    tokens, inside = noise(1, 24, 16, 24), torch.ones(1, 16, 24, dtype=torch.bool)
    # Within 3 of 24 places, and outside the image.
    tokens[:, :, 5, 7] = tokens[:, :, 3, 5]
    tokens[:, :, 15, 0] = tokens[:, :, 3, 20]
    inside[:, 12:] = False
    changed = self_similarity(tokens, inside)
    assert changed[0, :12].max() < self_similarity(noise(1, 24, 16, 24), inside)[0, :12].max() + 1
    tokens[:, :, 12:] = 100.0
    torch.testing.assert_close(self_similarity(tokens, inside)[:, :12], changed[:, :12])


def test_correlations_are_those_of_numpy():
    tokens, inside = noise(1, 6, 2, 3).double(), torch.ones(1, 2, 3, dtype=torch.bool)
    vectors = tokens[0].flatten(1).T.numpy()
    vectors = vectors - vectors.mean(0)
    vectors /= (vectors**2).sum(1, keepdims=True) ** 0.5
    correlations = torch.from_numpy(vectors @ vectors.T)
    # With three columns, no place but itself is near.
    greatest = (correlations - 2 * torch.eye(6, dtype=torch.float64)).amax(1)
    expected = ((greatest.atanh() - 1.5) * 3).reshape(1, 2, 3)
    torch.testing.assert_close(self_similarity(tokens, inside), expected, rtol=1e-4, atol=1e-4)


def test_percentiles_are_of_what_counts():
    values = torch.arange(1000.0).reshape(1, 20, 50).repeat(2, 1, 1)
    inside = torch.ones(2, 20, 50, dtype=torch.bool)
    inside[1, 10:] = False
    found = percentiles(values, inside)
    assert found.shape == (2, len(QUANTILES))
    assert found[0].tolist() == [999 - int(share * 1000) for share in QUANTILES]
    assert found[1].tolist() == [499 - int(share * 500) for share in QUANTILES]


@pytest.mark.parametrize("kind", ["pooled", "token", "tiled"])
@pytest.mark.parametrize("trunk", ["efficientnet_lite0", "siglip2_base"])
def test_heads_see_it_and_pass_gradients(kind, trunk):
    model = tiny_reward(trunk, kind=kind, self_similarity=True)
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0), requires_grad=True)
    scores = model.score(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    seen = model.network.head.hidden.weight[:, -1]
    with torch.no_grad():
        seen.add_(1)
        assert not torch.equal(model.score(images), scores)
