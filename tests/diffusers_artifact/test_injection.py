"""The state that attention processors share, and the cache of the inversion's values."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from diffusers_artifact import SOLVERS, PatchMapping
from diffusers_artifact.choices import InjectionRule
from diffusers_artifact.injection import InjectionState, default_position_blocks, default_value_blocks
from diffusers_artifact.mapping import ArtifactType


GRID = (2, 3)
EMPTY = PatchMapping.empty(GRID)
ARTIFACT = PatchMapping(targets=(1, 2), references=(4, 4), grid=GRID, types=("duplication", "omission"))


def values(rows: int, offset: float = 0.0) -> torch.Tensor:
    """Every token's value is a number of its own: 10 times the row, plus the token."""
    numbers = 10.0 * torch.arange(rows)[:, None] + torch.arange(6) + offset
    return numbers[..., None, None].repeat(1, 1, 2, 4)


def injected(state: InjectionState, rows: int, block: int = 0) -> torch.Tensor:
    return state.inject(block, "attn", values(rows), values(rows))[1][..., 0, 0]


def test_rows_with_artifacts_take_the_values_of_their_reconstruction():
    state = InjectionState([EMPTY, EMPTY, ARTIFACT, ARTIFACT], [0, 1, 0, 1], 10, (), (0,))
    state.begin_denoising(0, "cond")
    assert injected(state, 4).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [10, 11, 12, 13, 14, 15],
        [0, 4, 4, 3, 4, 5],
        [10, 14, 14, 13, 14, 15],
    ]


def test_a_held_background_takes_the_queries_of_its_reconstruction():
    state = InjectionState([EMPTY, EMPTY, ARTIFACT], [0, 1, 1], 10, (), (0,), hold_background=True)
    state.begin_denoising(0, "cond")
    query, _ = state.inject(0, "attn", values(3), values(3))
    assert query[..., 0, 0].tolist() == [[0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15], [10, 21, 22, 13, 14, 15]]


@pytest.mark.parametrize("value_source", ["reconstruction", "inversion"])
def test_text_before_the_image_is_left_alone(value_source):
    """The same sequence with and without two tokens of text, of the row's own."""
    both = []
    for text_length in (0, 2):
        state = InjectionState([EMPTY, ARTIFACT], [0, 0], 10, (), (0,), value_source=value_source)
        text = torch.full((2, text_length, 2, 4), 99.0)
        if value_source == "inversion":
            state.begin_inversion(0, "cond", updates=True)
            recorded = torch.cat([text, values(2, offset=0.5)], dim=1)[:1]
            state.inject(0, "attn", recorded, recorded, text_length)
        state.begin_denoising(0, "cond")
        sequence = torch.cat([text, values(2)], dim=1)
        both.append(state.inject(0, "attn", sequence, sequence, text_length)[1][..., 0, 0])
    assert torch.equal(both[1][:, 2:], both[0]) and (both[1][:, :2] == 99).all()
    assert both[0][0].tolist() == [0, 1, 2, 3, 4, 5]


def test_values_are_left_alone_after_their_steps():
    state = InjectionState([EMPTY, ARTIFACT], [0, 0], 10, (), (0,))
    state.begin_denoising(6, "cond")
    assert torch.equal(injected(state, 2), values(2)[..., 0, 0])


def test_both_branches_and_both_attentions_of_a_block_have_values_of_their_own():
    state = InjectionState([ARTIFACT], [0], 10, (), (0,), value_source="inversion")
    offsets = {("cond", "attn"): 0.1, ("uncond", "attn"): 0.2, ("cond", "attn2"): 0.3, ("uncond", "attn2"): 0.4}
    for (branch, name), offset in offsets.items():
        state.begin_inversion(0, branch, updates=True)
        state.inject(0, name, values(1), values(1, offset))
    for (branch, name), offset in offsets.items():
        state.begin_denoising(0, branch)
        _, value = state.inject(0, name, values(1), values(1))
        torch.testing.assert_close(value[0, :, 0, 0], torch.tensor([0, 4, 4, 3, 4, 5]) + offset)


def test_values_are_injected_in_the_branch_of_the_negative_prompt_too():
    state = InjectionState([EMPTY, ARTIFACT], [0, 0], 10, (), (0,))
    state.begin_denoising(0, "uncond")
    assert injected(state, 2)[1].tolist() == [0, 4, 4, 3, 4, 5]


def test_positions_end_by_artifact_type():
    """Of 25 steps, 20 for duplications and 24 for omissions (ArtiAgent §4.2.2)."""
    state = InjectionState([EMPTY, ARTIFACT], [0, 0], 25, (0,), ())
    moved = []
    for step in range(25):
        state.begin_denoising(step, "cond")
        moved.append(0 if state.moved is None else len(state.moved[0]))
    assert moved == [2] * 20 + [1] * 4 + [0]
    state.begin_denoising(22, "cond")
    assert state.moved is not None and [part.tolist() for part in state.moved] == [[1], [2], [4]]


def test_rotation_turns_targets_by_their_reference():
    state = InjectionState([EMPTY, ARTIFACT], [0, 0], 25, (0,), ())
    table = torch.arange(8.0)  # two tokens of text, then six of the image

    def turn(states: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        return states + (table if index is None else table[index])[None, :, None, None]

    states = torch.zeros(2, 8, 1, 1)
    state.begin_denoising(0, "cond")
    assert state.rotate(states, turn, text_length=2)[..., 0, 0].tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 2, 6, 6, 5, 6, 7],
    ]
    state.end()
    assert torch.equal(state.rotate(states, turn, text_length=2), turn(states, None))


def test_as_released_text_takes_the_values_that_it_had_in_the_inversion():
    """Two tokens of text before the image; the text of the second photo's artifact row is the second photo's."""
    mappings, sources = [EMPTY, EMPTY, ARTIFACT], [0, 1, 1]
    state = InjectionState(mappings, sources, 10, (), (0,), value_source="inversion", rule="released")
    inverted = torch.cat([torch.full((2, 2, 2, 4), 70.0), values(2, offset=0.5)], dim=1)
    inverted[1, :2] += torch.tensor([10.0, 11.0])[:, None, None]
    state.begin_inversion(0, "cond", updates=True)
    state.inject(0, "attn", inverted, inverted, 2)
    state.begin_denoising(0, "cond")
    sequence = torch.cat([torch.full((3, 2, 2, 4), 99.0), values(3)], dim=1)
    _, value = state.inject(0, "attn", sequence, sequence, 2)
    assert torch.equal(value[:2], sequence[:2])
    assert value[2, :, 0, 0].tolist() == [80, 81, 10.5, 14.5, 14.5, 13.5, 14.5, 15.5]


def test_as_released_values_are_left_alone_where_the_solution_does_not_move():
    cases: tuple[tuple[InjectionRule, bool], ...] = (("paper", False), ("released", True))
    for rule, left_alone in cases:
        state = InjectionState([ARTIFACT], [0], 10, (), (0,), value_source="inversion", rule=rule)
        state.begin_inversion(0, "cond", updates=True)
        state.inject(0, "attn", values(1), values(1, offset=0.5))
        state.begin_denoising(0, "cond", updates=False)
        assert state.moved is not None and torch.equal(injected(state, 1), values(1)[..., 0, 0]) is left_alone
        state.begin_denoising(0, "cond", updates=True)
        assert not torch.equal(injected(state, 1), values(1)[..., 0, 0])


def test_as_released_a_reference_that_is_an_earlier_target_gives_the_position_that_it_was_given():
    """Token 2 takes 1's, which has 4's. Token 3's reference 5 is a later target. From step 20, 1 has its own again."""
    types: tuple[ArtifactType, ...] = ("duplication", "omission", "omission", "omission")
    chain = PatchMapping(targets=(1, 2, 3, 5), references=(4, 1, 5, 0), grid=GRID, types=types)
    expected: dict[InjectionRule, list[int]] = {"paper": [4, 1, 5, 0], "released": [4, 4, 5, 0]}
    for rule, references in expected.items():
        state = InjectionState([EMPTY, chain], [0, 0], 25, (0,), (), value_source="inversion", rule=rule)
        for step, remaining in ((0, references), (20, [1, 5, 0])):
            state.begin_denoising(step, "cond")
            assert state.moved is not None and state.moved[2].tolist() == remaining


def test_as_released_one_block_has_neither_values_nor_positions():
    """Of FLUX.1's 19 + 38 blocks, positions in the first 38 and values in single-stream blocks 20 to 37, 0-based."""
    assert default_value_blocks(57, "released") == range(19 + 20, 19 + 38)
    assert default_value_blocks(8, "released") == range(5, 8)


def test_the_cache_keeps_only_what_is_read():
    """Of 10 steps the first 6, and of the tokens those that the artifact row takes: of row 0 all but 1 and 2."""
    state = InjectionState([EMPTY, EMPTY, ARTIFACT], [0, 1, 0], 10, (), (1,), value_source="inversion")
    for step in reversed(range(10)):
        state.begin_inversion(step, "cond", updates=True)
        state.inject(1, "attn", values(2), values(2, offset=0.01 * step))
    assert state.cache_bytes == 6 * 4 * (2 * 4) * 4  # steps, tokens, heads and channels, bytes
    state.begin_denoising(5, "cond")
    torch.testing.assert_close(injected(state, 3, block=1)[2], torch.tensor([0, 4, 4, 3, 4, 5]) + 0.05)


@pytest.mark.parametrize("cache_device", ["model", "cpu"])
@pytest.mark.parametrize("solver", ["euler", "midpoint", "fireflow", "uni_inv"])
def test_cached_values_are_those_of_the_same_interval(solver, cache_device):
    """The pairing rule: what an evaluation reads was recorded by the one that crossed the same interval inverting."""
    config = FlowMatchEulerDiscreteScheduler(shift=3.0).config
    inversion, denoising = (SOLVERS[solver].from_config(config) for _ in range(2))
    inversion.set_timesteps(5, inverse=True)
    denoising.set_timesteps(5)
    state = InjectionState(
        [ARTIFACT], [0], 5, (), (0,), value_steps=5, value_source="inversion", cache_device=cache_device
    )

    def evaluation(scheduler, index):
        sigma = torch.full((1, 6, 1, 1), float(scheduler.sigmas[index]))
        return scheduler.step_of_evaluation[index], scheduler.updates_solution[index], sigma

    recorded = {}
    for index in range(len(inversion.timesteps)):
        step, updates, sigma = evaluation(inversion, index)
        state.begin_inversion(step, "cond", updates)
        state.inject(0, "attn", sigma, sigma)
        if updates:
            recorded[step] = sigma[0, 0, 0, 0]
    assert sorted(recorded) == list(range(5))
    for index in range(len(denoising.timesteps)):
        step, _, sigma = evaluation(denoising, index)
        state.begin_denoising(step, "cond")
        _, read = state.inject(0, "attn", sigma, sigma)
        assert torch.equal(read, recorded[step].expand_as(read))
        noisy, clean = denoising.sigma_grid[step : step + 2]
        assert clean <= recorded[step] <= noisy and clean <= sigma.max() <= noisy


@pytest.mark.skipif(not torch.cuda.is_available(), reason="values leave the model's device only where there is one")
def test_values_wait_in_host_memory():
    state = InjectionState(
        [ARTIFACT], [0], 3, (), (0, 1), value_steps=3, value_source="inversion", cache_device="cpu", device="cuda"
    )
    for step in reversed(range(3)):
        state.begin_inversion(step, "cond", updates=True)
        for block in range(2):
            state.inject(block, "attn", values(1), values(1, offset=step + 0.5 * block).cuda())
    for step in range(3):
        state.begin_denoising(step, "cond")
        for block in range(2):
            _, value = state.inject(block, "attn", values(1).cuda(), values(1).cuda())
            expected = torch.tensor([0, 4, 4, 3, 4, 5]) + step + 0.5 * block
            torch.testing.assert_close(value[0, :, 0, 0].cpu(), expected)


@pytest.mark.parametrize("num_blocks, split", [(57, 38), (8, 5), (3, 2)])
def test_default_blocks_are_the_papers_shares(num_blocks, split):
    assert default_position_blocks(num_blocks) == range(split)
    assert default_value_blocks(num_blocks) == range(split, num_blocks)
