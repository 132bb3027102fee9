"""What is injected where: the plan that the attention processors of one call share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .choices import CacheDevice, ValueSource
from .mapping import ArtifactType, PatchMapping
from .value_cache import ValueCache


Turn = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]

# Shares of the denoising steps and of the depth, from the paper's settings for 25 steps and FLUX's 19 + 38 blocks
# (ArtiAgent §4.2.2): position 20 steps, 24 for omission; value 15 steps; position in the first 38 blocks, value in the
# last 19.
POSITION_STEP_SHARE: dict[ArtifactType, float] = {
    "duplication": 20 / 25,
    "omission": 24 / 25,
    "distortion": 20 / 25,
    "fusion": 20 / 25,
}
VALUE_STEP_SHARE = 15 / 25
UNTYPED: tuple[ArtifactType, ...] = ("duplication",)
SPLIT_DEPTH_SHARE = 38 / 57


def default_position_blocks(num_blocks: int) -> range:
    """The blocks that get positions by default: the first two thirds."""
    return range(round(SPLIT_DEPTH_SHARE * num_blocks))


def default_value_blocks(num_blocks: int) -> range:
    """The blocks that get values by default: the last third."""
    return range(round(SPLIT_DEPTH_SHARE * num_blocks), num_blocks)


class InjectionState:
    r"""
    Answers, for the model evaluation under way, which position and which value every token takes.

    Every row of a batch has a mapping and a source; rows whose mapping is empty are left alone. All tensors that
    processors read are made between evaluations, so that a compiled transformer meets no Python that changes.

    Args:
        mappings (`Sequence[PatchMapping]`): One for each row.
        sources (`Sequence[int]`): For each row, where the clean image's values are: the row of its reconstruction, or
            with `value_source="inversion"` the row of the inversion's batch.
        num_inference_steps (`int`): Denoising steps.
        position_blocks (`Sequence[int]`): Blocks in which target tokens take the position of their reference.
        value_blocks (`Sequence[int]`): Blocks in which flawed rows take the clean image's values.
        position_steps (`int`, *optional*): First steps with position injection; by default a share by artifact type.
        value_steps (`int`, *optional*): First steps with value injection; by default 15/25 of them.
        hold_background (`bool`, *optional*, defaults to `False`): Where values are injected, what is no target also
            takes the reconstruction's queries; needs `value_source="reconstruction"`.
        value_source (`str`, *optional*, defaults to `"reconstruction"`): Where values come from. `"reconstruction"`
            reads the reconstruction's row of the same evaluation and needs no memory. `"inversion"` is the paper's:
            the values that the inversion had over the same interval of the sigma grid, read from a cache.
        cache_device (`str`, *optional*, defaults to `"model"`): Where cached values wait; see [`ValueCache`].
        device (`torch.device`, *optional*): Device of the index tensors.

    Attributes:
        moved (`tuple[torch.Tensor, torch.Tensor, torch.Tensor]`, *optional*): Row, target and reference of every pair
            whose position is injected in the evaluation under way; `None` if there is none.
    """

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
    ):
        self.position_blocks, self.value_blocks = frozenset(position_blocks), frozenset(value_blocks)
        self.num_tokens = mappings[0].grid[0] * mappings[0].grid[1]
        self._reads_inversion = value_source == "inversion"
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
        self.end()

    def _index_sources(self, mappings: Sequence[PatchMapping], sources: Sequence[int]) -> None:
        """Lays out which token of which row gives every token its value, and its query, both `(rows, tokens)`."""
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
            # Only what will be read is kept, once: the union of the tokens that all flawed rows take. It follows the
            # batch as one row more.
            read = value_rows[flawed] * self.num_tokens + value_tokens[flawed]
            kept, value_tokens[flawed] = read.unique(return_inverse=True)
            value_rows[flawed] = len(mappings)
            self._sources["record"] = (kept // self.num_tokens, kept % self.num_tokens)
        self._any_flaw = bool(flawed.any())
        self._indices: dict[tuple[str, int], torch.Tensor] = {}

    def prepare(self, text_length: int) -> None:
        """
        Makes what `inject` needs for sequences with `text_length` tokens of text first. It would make them itself,
        but within the graph of a compiled transformer, which would then be compiled again.
        """
        for kind in self._sources:
            self._index(kind, 0)
            self._index(kind, text_length)

    def _index(self, kind: str, text_length: int) -> torch.Tensor:
        """`_sources[kind]` as an index into sequences with `text_length` tokens of text first, rows end to end."""
        if (kind, text_length) not in self._indices:
            rows, tokens = self._sources[kind]
            length = text_length + self.num_tokens
            if kind == "record":
                index = rows * length + text_length + tokens
            else:
                text = torch.arange(len(rows))[:, None] * length + torch.arange(text_length)
                # Cached values have no text before them.
                offset = torch.where(rows == len(rows), 0, text_length)
                index = torch.cat([text, rows * length + offset + tokens], dim=1).flatten()
            self._indices[kind, text_length] = index.to(self._device)
        return self._indices[kind, text_length]

    @property
    def cache_bytes(self) -> int:
        """Memory held by cached values, in bytes."""
        return self._cache.num_bytes

    def end(self) -> None:
        """Between evaluations, and for evaluations without injection: every token is its own."""
        self._step, self._branch = 0, ""
        self._recording = self._injecting = False
        self.moved: tuple[torch.Tensor, ...] | None = None

    def begin_inversion(self, step: int, branch: str, updates: bool) -> None:
        """
        Prepares for an evaluation while inverting.

        Args:
            step (`int`): The denoising step whose interval of the sigma grid the evaluation belongs to.
            branch (`str`): `"cond"` or `"uncond"`.
            updates (`bool`): Whether its velocity moves the solution across the interval; those are cached, so that
                there is one value for each interval whatever the solver.
        """
        self.end()
        self._step, self._branch = step, branch
        self._recording = updates and self._reads_inversion and step < self._value_steps

    def begin_denoising(self, step: int, branch: str) -> None:
        """Prepares for an evaluation of denoising step `step`, 0-based; see `begin_inversion`."""
        self.end()
        self._step, self._branch = step, branch
        self._injecting = step < self._value_steps and self._any_flaw
        # Pairs only ever become inactive, so their number tells whether these are the ones of the last evaluation.
        active = [pair[:3] for pair in self._pairs if pair[3] > step]
        if len(active) != self._num_moved:
            self._num_moved = len(active)
            self._moved = tuple(torch.tensor(active, device=self._device).unbind(1)) if active else None
        self.moved = self._moved

    def inject(
        self, block: int, name: str, query: torch.Tensor, value: torch.Tensor, text_length: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        Queries and values, of which the image tokens of flawed rows have the values of the clean image, and those that
        are no targets its queries too if the background is held. For blocks in `value_blocks`.

        Args:
            block (`int`): Index of the transformer block.
            name (`str`): Which attention of the block, for blocks that have two.
            query, value (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): The model's own, before
                rotation, `text_length` tokens of text first.
            text_length (`int`): Tokens of text in the sequence.

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

    # A compiled transformer steps out for the cache, whose keys change with every evaluation.
    @torch.compiler.disable
    def _record(self, block: int, name: str, value: torch.Tensor, text_length: int) -> None:
        kept = value.flatten(0, 1).index_select(0, self._index("record", text_length))
        self._cache.store((self._step, block, name, self._branch), kept)

    @torch.compiler.disable
    def _recorded(self, block: int, name: str, device: torch.device) -> torch.Tensor:
        return self._cache.load((self._step, block, name, self._branch), device)

    def rotate(self, states: torch.Tensor, turn: Turn, text_length: int = 0) -> torch.Tensor:
        r"""
        Queries or keys, rotated by the position of each token, or of its reference. For blocks in `position_blocks`.

        Args:
            states (`torch.Tensor` of shape `(rows, sequence, heads, head_dim)`): Queries or keys, `text_length` tokens
                of text first.
            turn (`Callable`): The family's own rotation: `turn(states, None)` by all positions of the sequence,
                `turn(states, index)` by those at `index`, of shape `(sequence,)`.

        Returns:
            `torch.Tensor` of the shape of `states`.
        """
        rotated = turn(states, None)
        if self.moved is None:
            return rotated
        rows, targets, references = self.moved
        of_targets = states[rows, targets + text_length]
        rotated[rows, targets + text_length] = turn(of_targets[None], references + text_length)[0]
        return rotated


def position_until(kind: ArtifactType, num_inference_steps: int, position_steps: int | None) -> int:
    """Number of first denoising steps with position injection, for a pair of an artifact of type `kind`."""
    return round(POSITION_STEP_SHARE[kind] * num_inference_steps) if position_steps is None else position_steps
