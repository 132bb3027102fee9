"""Advantages and the loss of a policy, against values computed by hand and an independent gradient."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from training.denoiser.advantages import PromptStatistics, group_advantages
from training.denoiser.policy import Transition
from training.denoiser.policy_loss import clipped_loss, divergence


def test_groups_are_compared_within_themselves():
    rewards = torch.tensor([0.0, 1.0, 2.0, 10.0, 10.0, 10.0, 0.0, 10.0, 20.0])
    found = group_advantages(rewards, 3)
    expected = (1.5**0.5) * torch.tensor([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    across = group_advantages(rewards, 3, across_groups=True)
    # The wide group outweighs the narrow one tenfold.
    assert across[8] == pytest.approx(10 * across[2].item(), rel=1e-5) and across[3] == 0


def test_advantages_are_clipped():
    rewards = torch.tensor([0.0] * 99 + [1.0])
    assert group_advantages(rewards, 100)[-1] == 5 and group_advantages(rewards, 100, clip=2.0)[-1] == 2


def test_a_prompt_is_compared_with_its_own_past_once_there_is_enough():
    statistics = PromptStatistics(2, size=4, least=4)
    first = statistics.advantages([0, 0, 1, 1], torch.tensor([0.0, 0.0, 4.0, 4.0]))
    # Too few yet: with all images.
    torch.testing.assert_close(first, torch.tensor([-1.0, -1.0, 1.0, 1.0]), atol=1e-3, rtol=0)
    second = statistics.advantages([0, 0, 1, 1], torch.tensor([2.0, 2.0, 4.0, 4.0]))
    torch.testing.assert_close(second, torch.tensor([1.0, 1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
    third = statistics.advantages([0, 0], torch.tensor([2.0, 2.0]))
    # Its first rewards are forgotten.
    torch.testing.assert_close(third, torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages(torch.zeros(4), 1), "`group_size` must be at least 2"),
        (lambda: group_advantages(torch.zeros(5), 2), "divide 5 rewards, got 2"),
        (lambda: group_advantages(torch.tensor([0.0, float("nan")]), 2), "`rewards` must be finite"),
        (lambda: PromptStatistics(1, 4, 5), "`least` must lie between 2 and `size`"),
    ],
)
def test_what_can_not_be_compared_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_gradient_at_ratio_1_is_the_policy_gradient():
    before = torch.randn(4)
    log_prob, advantages = before.clone().requires_grad_(), torch.tensor([1.0, -2.0, 0.5, 0.0])
    found = clipped_loss(log_prob, before, advantages, 1e-4)
    found.loss.backward()
    torch.testing.assert_close(log_prob.grad, -advantages / 4)
    assert torch.equal(found.ratio, torch.ones(4)) and found.clipped == 0


@pytest.mark.parametrize(
    ("change", "advantage", "moves"),
    [(0.3, 1.0, False), (0.3, -1.0, True), (-0.3, 1.0, True), (-0.3, -1.0, False), (0.05, 1.0, True)],
)
def test_a_ratio_is_held_where_it_has_gone_far_enough(change, advantage, moves):
    log_prob = torch.tensor([change], requires_grad=True)
    found = clipped_loss(log_prob, torch.zeros(1), torch.tensor([advantage]), 0.1)
    found.loss.backward()
    assert bool(log_prob.grad != 0) is moves and found.clipped == float(abs(change) > 0.1)


def test_divergence_is_that_of_normal_distributions():
    mean, base = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    expected = kl_divergence(Normal(mean, 0.2), Normal(base, 0.2)).mean()
    torch.testing.assert_close(divergence(Transition(mean, 0.2), Transition(base, 0.2)), expected)
