"""State of an injection: which position and value each token takes, shared by the attention processors of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from .choices import CacheDevice, InjectionRule, ValueSource
from .mapping import ArtifactType, PatchMapping
from .value_cache import ValueCache


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import processors

    Recording = processors.Recording


Turn = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Rotary embedding: `turn(states, None)` rotates by all positions, `turn(states, index)` by those at `index`."""

# Shares of the denoising steps and of the depth, from the paper's settings for 25 steps and FLUX's 19 + 38 blocks
# (ArtiAgent §4.2.2): position 20 steps, 24 for omission; value 15 steps; position in the first 38 blocks, value in the
# last 19.
POSITION_STEP_SHARE = 20 / 25
POSITION_STEP_SHARE_OF_TYPE: dict[ArtifactType, float] = {"omission": 24 / 25}
VALUE_STEP_SHARE = 15 / 25
UNTYPED: tuple[ArtifactType, ...] = ("duplication",)
SPLIT_DEPTH_SHARE = 38 / 57
# The released code leaves out one block between the two, FLUX's single-stream block 19, 0-based.
RELEASED_VALUE_DEPTH_SHARE = 39 / 57


def default_position_blocks(num_blocks: int) -> range:
    """Return the default blocks with position injection, the first two thirds (ArtiAgent §4.2.2)."""
    return range(round(SPLIT_DEPTH_SHARE * num_blocks))


def default_value_blocks(num_blocks: int, rule: InjectionRule = "paper") -> range:
    """Return the default blocks with value injection, the last third (ArtiAgent §4.2.2); see [`InjectionState`]."""
    share = RELEASED_VALUE_DEPTH_SHARE if rule == "released" else SPLIT_DEPTH_SHARE
    return range(round(share * num_blocks), num_blocks)


def chained(pairs: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """
    Let a target whose reference is an earlier target take the position which that one was given.

    Args:
        pairs (`Sequence[tuple[int, int, int]]`): Row, target and reference of each pair, in order.

    Returns:
        `list[tuple[int, int, int]]`: The pairs, with the references that remain.
    """
    given: dict[tuple[int, int], int] = {}
    for row, target, reference in pairs:
        given[row, target] = given.get((row, reference), reference)
    return [(row, target, reference) for (row, target), reference in given.items()]


class InjectionState:
    r"""
    Position and value that each token takes at the current evaluation of the model (ArtiAgent §4.2).

    Every row of a batch has a mapping and a source; rows whose mapping is empty are left alone. All tensors that
    processors read are made between evaluations, so that no Python changes within a compiled transformer.

    The code that the paper's authors published differs from its text in four ways, which `rule="released"` follows:

    | | `"paper"` | `"released"` |
    |---|---|---|
    | text tokens of single-stream blocks | keep their values | take the values that they had in the inversion |
    | default value blocks of FLUX.1 (0-based) | single-stream blocks 19 to 37 | 20 to 37 |
    | values in evaluations that do not move the solution, such as FireFlow's first | injected | not injected |
    | reference that is an earlier target of its mapping | its own position | the position which it was given |

    Only FLUX.1 with FireFlow was released; to other solvers and depths the rule is carried over as above. It was
    written from a description of that code, which leaves three things open. We assume that positions are injected in
    FireFlow's first evaluation too, that a chain follows the order of the mapping, and that pairs whose steps are over
    break it. Values are not chained: they are read from the inversion.

    Args:
        mappings (`Sequence[PatchMapping]`): Mapping of each row.
        sources (`Sequence[int]`): For each row, the row that holds the clean image's values: that of its
            reconstruction or, with `value_source="inversion"`, its row in the inversion's batch.
        num_inference_steps (`int`): Number of denoising steps.
        position_blocks (`Sequence[int]`): Blocks in which target tokens take the position of their reference.
        value_blocks (`Sequence[int]`): Blocks in which rows with artifacts take the clean image's values.
        position_steps (`int`, *optional*): Number of first steps with position injection. Defaults to a share by
            artifact type.
        value_steps (`int`, *optional*): Number of first steps with value injection. Defaults to 15/25 of the steps.
        hold_background (`bool`, *optional*, defaults to `False`): Where values are injected, also give tokens outside
            the target the reconstruction's queries. Needs `value_source="reconstruction"`.
        value_source (`str`, *optional*, defaults to `"reconstruction"`): `"reconstruction"` reads the values of the
            reconstruction's row at the same evaluation and needs no memory. `"inversion"`, the paper's method, reads
            those that the inversion had over the same interval of the sigma grid from a cache.
        cache_device (`str`, *optional*, defaults to `"model"`): Device of cached values; see [`ValueCache`].
        device (`torch.device`, *optional*, defaults to `"cpu"`): Device of the index tensors.
        rule (`str`, *optional*, defaults to `"paper"`): `"paper"` or `"released"`, which needs
            `value_source="inversion"`; see above.

    Attributes:
        moved (`tuple[torch.Tensor, torch.Tensor, torch.Tensor]`, *optional*): Row, target and reference of every pair
            whose position is injected at the current evaluation; `None` if there is none.
        target_positions (`torch.Tensor` of shape `(rows, tokens)`, *optional*): Injected position of every token
            of the rows of targets, during their forward pass; see [`TargetInjectionState`].
        recordings (`list[Recording]`): One for each attention, which its processor adds.
    """

    target_positions: torch.Tensor | None = None

    def __init__(
        self,
        mappings: Sequence[PatchMapping],
        sources: Sequence[int],
        num_inference_steps: int,
        position_blocks: Sequence[int],
        value_blocks: Sequence[int],
        position_steps: int | None = None,
        value_steps: int | None = None,
        hold_background: bool = False,
        value_source: ValueSource = "reconstruction",
        cache_device: CacheDevice = "model",
        device: torch.device | str = "cpu",
        rule: InjectionRule = "paper",
    ):
        self.position_blocks, self.value_blocks = frozenset(position_blocks), frozenset(value_blocks)
        self.grid = mappings[0].grid
        self.num_tokens = self.grid[0] * self.grid[1]
        self._reads_inversion = value_source == "inversion"
        self._as_released = rule == "released"
        self._value_steps = round(VALUE_STEP_SHARE * num_inference_steps) if value_steps is None else value_steps
        self._pairs = [
            (row, target, reference, position_until(kind, num_inference_steps, position_steps))
            for row, mapping in enumerate(mappings)
            for target, reference, kind in zip(
                mapping.targets, mapping.references, mapping.types or UNTYPED * len(mapping), strict=True
            )
        ]
        self._holds_background = hold_background
        self._device = device
        self._index_sources(mappings, sources)
        self._cache = ValueCache(cache_device)
        self._num_moved = 0
        self._moved: tuple[torch.Tensor, ...] | None = None
        self.recordings: list[Recording] = []
        self.end()

    def _index_sources(self, mappings: Sequence[PatchMapping], sources: Sequence[int]) -> None:
        """Index the row and token, both `(rows, tokens)`, from which each token takes its value and its query."""
        tokens = torch.arange(self.num_tokens).repeat(len(mappings), 1)
        rows = torch.arange(len(mappings))[:, None].repeat(1, self.num_tokens)
        value_tokens, value_rows, query_rows = tokens.clone(), rows.clone(), rows.clone()
        flawed = torch.tensor([len(mapping) > 0 for mapping in mappings])
        for row, (mapping, source) in enumerate(zip(mappings, sources, strict=True)):
            if flawed[row]:
                value_rows[row] = query_rows[row] = source
                value_tokens[row, list(mapping.targets)] = torch.tensor(mapping.references)
                query_rows[row, list(mapping.targets)] = row
        self._sources = {"query": (query_rows, tokens), "value": (value_rows, value_tokens)}
        if self._reads_inversion:
            # Only values that will be read are kept, each once. They follow the batch as one more row.
            read = value_rows[flawed] * self.num_tokens + value_tokens[flawed]
            kept, value_tokens[flawed] = read.unique(return_inverse=True)
            value_rows[flawed] = len(mappings)
            self._sources["record"] = (kept // self.num_tokens, kept % self.num_tokens)
        # Rows whose text tokens take cached values too, and the row of the inversion that each takes them from.
        self._takes_text = flawed & self._as_released
        self._text_sources = torch.tensor(sources)
        self._any_artifact = bool(flawed.any())
        self._indices: dict[tuple[str, int], torch.Tensor] = {}

    def prepare(self, text_length: int) -> None:
        """
        Build the indices that `inject` needs for sequences that begin with `text_length` text tokens.

        `inject` would build them on demand, but inside the graph of a compiled transformer, which would be compiled
        again.
        """
        for kind in self._sources:
            self._index(kind, 0)
            self._index(kind, text_length)

    def _index(self, kind: str, text_length: int) -> torch.Tensor:
        """Return `_sources[kind]` as an index into the flattened rows, each with `text_length` text tokens first."""
        if (kind, text_length) not in self._indices:
            rows, tokens = self._sources[kind]
            length = text_length + self.num_tokens
            each = torch.arange(text_length)
            if kind == "record":
                text = self._text_sources[self._takes_text].unique()[:, None] * length + each
                index = torch.cat([rows * length + text_length + tokens, text.flatten()])
            else:
                start = torch.arange(len(rows)) * length
                if kind == "value" and self._takes_text.any():
                    # Cached values of the text follow those of the image.
                    cached = self._text_sources[self._takes_text].unique(return_inverse=True)[1]
                    before = len(rows) * length + len(self._sources["record"][0])
                    start[self._takes_text] = before + cached * text_length
                # Cached values have no text before them.
                offset = torch.where(rows == len(rows), 0, text_length)
                index = torch.cat([start[:, None] + each, rows * length + offset + tokens], dim=1).flatten()
            self._indices[kind, text_length] = index.to(self._device)
        return self._indices[kind, text_length]

    @property
    def cache_bytes(self) -> int:
        """Memory that cached values take, in bytes."""
        return self._cache.num_bytes

    def end(self) -> None:
        """Stop injecting: between evaluations, and for evaluations without injection."""
        self._step, self._branch = 0, ""
        self._recording = self._injecting = False
        self.moved: tuple[torch.Tensor, ...] | None = None

    def begin_inversion(self, step: int, branch: str, updates: bool) -> None:
        """
        Prepare for an evaluation of the inversion.

        Args:
            step (`int`): Denoising step whose interval of the sigma grid the evaluation belongs to, 0-based.
            branch (`str`): Guidance branch, `"cond"` or `"uncond"`.
            updates (`bool`): Whether its velocity moves the solution across the interval. Values of these evaluations
                are cached, so that every solver caches one value for each interval.
        """
        self.end()
        self._step, self._branch = step, branch
        self._recording = updates and self._reads_inversion and step < self._value_steps

    def begin_denoising(self, step: int, branch: str, updates: bool = True) -> None:
        """Prepare for an evaluation of denoising step `step`, 0-based; see `begin_inversion`."""
        self.end()
        self._step, self._branch = step, branch
        self._injecting = step < self._value_steps and self._any_artifact and (updates or not self._as_released)
        active = self._changed_pairs(step)
        if active is not None:
            if self._as_released:
                active = chained(active)
            self._moved = tuple(torch.tensor(active, device=self._device).unbind(1)) if active else None
        self.moved = self._moved

    def _changed_pairs(self, step: int) -> list[tuple[int, int, int]] | None:
        """Return row, target and reference of the pairs active at `step`; `None` if the last call had the same."""
        active = [pair[:3] for pair in self._pairs if pair[3] > step]
        # Pairs only ever become inactive, so an equal number means the same pairs.
        if len(active) == self._num_moved:
            return None
        self._num_moved = len(active)
        return active

    def begin_targets(self) -> None:
        """Prepare for the forward pass of the rows of targets; see [`TargetInjectionState`]."""
        raise NotImplementedError("rows of targets need a `TargetInjectionState`")

    def inject(
        self, block: int, name: str, query: torch.Tensor, value: torch.Tensor, text_length: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        Give image tokens of rows with artifacts the clean image's values and, outside the target, its queries if the
        background is held. To be called in `value_blocks`.

        Args:
            block (`int`): Index of the transformer block.
            name (`str`): Name of the attention within the block, for blocks with two.
            query, value (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): The model's own, before
                rotation, with `text_length` text tokens first.
            text_length (`int`, *optional*, defaults to 0): Number of text tokens in the sequence.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]` of the shapes of `query` and `value`.
        """
        if self._recording:
            self._record(block, name, value, text_length)
        if not self._injecting:
            return query, value
        given = value.flatten(0, 1)
        if self._reads_inversion:
            given = torch.cat([given, self._recorded(block, name, value.device)])
        value = given.index_select(0, self._index("value", text_length)).view(value.shape)
        if self._holds_background:
            query = query.flatten(0, 1).index_select(0, self._index("query", text_length)).view(query.shape)
        return query, value

    # Outside the compiled graph, because the cache's keys change with every evaluation.
    @torch.compiler.disable
    def _record(self, block: int, name: str, value: torch.Tensor, text_length: int) -> None:
        kept = value.flatten(0, 1).index_select(0, self._index("record", text_length))
        self._cache.store((self._step, block, name, self._branch), kept)

    @torch.compiler.disable
    def _recorded(self, block: int, name: str, device: torch.device) -> torch.Tensor:
        return self._cache.load((self._step, block, name, self._branch), device)

    def rotate(self, states: torch.Tensor, turn: Turn, text_length: int = 0, moves: bool = True) -> torch.Tensor:
        r"""
        Rotate queries or keys by each token's position, targets by their reference's.

        Args:
            states (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): Queries or keys, with `text_length`
                text tokens first.
            turn (`Callable`): The family's rotary embedding: `turn(states, None)` rotates by all positions of the
                sequence, `turn(states, index)` by those at `index`, of shape `(sequence,)`.
            text_length (`int`, *optional*, defaults to 0): Number of text tokens in the sequence.
            moves (`bool`, *optional*, defaults to `True`): Whether positions are injected in this block.

        Returns:
            `torch.Tensor` of the shape of `states`.
        """
        rotated = turn(states, None)
        if not moves or self.moved is None:
            return rotated
        rows, targets, references = self.moved
        of_targets = states[rows, targets + text_length]
        rotated[rows, targets + text_length] = turn(of_targets[None], references + text_length)[0]
        return rotated

    def share(
        self,
        recording: Recording,
        takes_values: bool,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        text_first: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        r"""
        Let rows of targets attend to their clean rows; see [`TargetInjectionState`]. Here there are no such rows, and
        all is returned as given.

        Args:
            recording (`Recording`): The attention's own.
            takes_values (`bool`): Whether values are injected in this block.
            query, key, value (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): After rotation.
            mask (`torch.Tensor`, *optional*): Attention mask.
            text_first (`bool`, *optional*, defaults to `True`): Whether the text comes before the image.

        Returns:
            `tuple`: Queries, keys, values and mask to attend with.
        """
        return query, key, value, mask

    def collect(self, output: torch.Tensor) -> torch.Tensor:
        r"""
        Undo what [`share`] does to the batch. Here it does nothing.

        Args:
            output (`torch.Tensor` of shape `(rows, sequence, channels)`): Output of the attention.
        """
        return output


def position_until(kind: ArtifactType, num_inference_steps: int, position_steps: int | None) -> int:
    """
    Return the number of first denoising steps with position injection for one pair.

    Args:
        kind (`str`): Artifact type of the pair.
        num_inference_steps (`int`): Number of denoising steps.
        position_steps (`int`, *optional*): Number that the user gave, which takes precedence over the type's share.
    """
    if position_steps is not None:
        return position_steps
    return round(POSITION_STEP_SHARE_OF_TYPE.get(kind, POSITION_STEP_SHARE) * num_inference_steps)
