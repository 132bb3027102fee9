"""Rows that hold only an artifact's target and attend to their clean row, for `compute="target"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .confinement import dilated_targets
from .injection import InjectionState


if TYPE_CHECKING:
    # Not `from .x import y`: of a repository on the Hub, diffusers fetches a file once for every such line that leads
    # to it, from each module that leads there.
    from . import injection, mapping, processors

    PatchMapping = mapping.PatchMapping
    Recording = processors.Recording
    Turn = injection.Turn


class TargetRows:
    r"""
    Arrangement of a batch in which artifact variants are computed at their targets alone.

    The clean rows are whole. For each photo one row follows with the tokens of its variants' targets and of the
    patches that touch them, one variant after the other. So little is padding, and layers that work token by token
    cost what the tokens do; only for attention are variants taken apart. Padding repeats the last token: it is
    computed twice with one result, so no mask is needed. Variants without targets are in no row, because they equal
    their clean row.

    Args:
        mappings (`Sequence[PatchMapping]`): Mapping of each variant.
        image_indices (`Sequence[int]`): For each variant, the index of its photo, which is its clean row.
        num_images (`int`): Number of photos.
        multiple (`int`): The length of the rows is a multiple of it, so that few graphs are compiled.
        device (`torch.device`, *optional*, defaults to `"cpu"`): Device of the index tensors.

    Attributes:
        tokens, variants (`torch.Tensor` of shape `(rows, length)`): Token of the image at each place of the rows, and
            the variant that it belongs to.
        sources (`torch.Tensor` of shape `(flawed,)`): Clean row of each variant with targets.
        places (`torch.Tensor` of shape `(flawed, most)`): Where the tokens of each variant with targets are in the
            flattened rows, padded by repeating the last.
        origins (`torch.Tensor` of shape `(rows, length)`): The other way round: for each place of the rows, the index
            of its token in the flattened `places`.
    """

    def __init__(
        self,
        mappings: Sequence[PatchMapping],
        image_indices: Sequence[int],
        num_images: int,
        multiple: int,
        device: torch.device | str = "cpu",
    ):
        self.num_clean = num_images
        self.image_indices = torch.tensor(image_indices, device=device)
        own = [tokens.nonzero()[:, 0] for tokens in dilated_targets(mappings).flatten(1)]
        counts = torch.tensor([len(tokens) for tokens in own])
        flawed = sorted((image, variant) for variant, image in enumerate(image_indices) if counts[variant])
        rows = [[variant for image, variant in flawed if image == row] for row in sorted({i for i, _ in flawed})]
        length = -(-max((int(counts[row].sum()) for row in rows), default=0) // multiple) * multiple
        most = int(counts.max())
        places: list[torch.Tensor] = []
        origins: list[torch.Tensor] = []
        for number, row in enumerate(rows):
            starts = number * length + counts[row].cumsum(0) - counts[row]
            ordinals = [torch.arange(count) for count in counts[row].tolist()]
            origins.append(torch.cat([(len(places) + k) * most + part for k, part in enumerate(ordinals)]))
            places += [start + part for start, part in zip(starts, ordinals, strict=True)]
        variants = [torch.tensor(row).repeat_interleave(counts[row]) for row in rows]
        self.tokens = _padded([torch.cat([own[variant] for variant in row]) for row in rows], length).to(device)
        self.variants, self.origins = _padded(variants, length).to(device), _padded(origins, length).to(device)
        self.places = _padded(places, most).to(device)
        self.sources = torch.tensor([image for image, _ in flawed], dtype=torch.long, device=device)

    def __len__(self) -> int:
        return len(self.places)

    def split(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Take apart a batch of whole rows.

        Args:
            tokens (`torch.Tensor` of shape `(clean + variants, tokens, channels)`): Clean rows, then variants.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The clean rows, and the rows of targets.
        """
        return tokens[: self.num_clean], tokens[self.num_clean + self.variants, self.tokens]

    def join(self, clean: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """Put together what [`split`] takes apart; all tokens of a variant but its targets are its clean row's."""
        variants = clean[self.image_indices]
        if targets is not None:
            variants[self.variants, self.tokens] = targets
        return torch.cat([clean, variants])


class TargetInjectionState(InjectionState):
    r"""
    State of an injection into rows of targets, with the background held: queries, keys and values of all other tokens
    are the clean image's.

    In each evaluation the clean rows go through the transformer first, and every attention records their keys and
    values. The rows of targets follow: each variant's own keys and values replace those of the same tokens in a copy
    of the clean row's, to which its queries attend. The text is the clean row's too. (KV-Edit, arXiv 2502.17363, reads
    the background from a cache of the inversion; here both are computed in lockstep, so nothing outlives an
    evaluation.)

    Args:
        rows (`TargetRows`): Arrangement of the batch.
        args, kwargs: As in [`InjectionState`], for clean rows and variants; `hold_background` must be `True`.
    """

    def __init__(self, rows: TargetRows, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._rows = rows
        self._own = rows.tokens.flatten()[rows.places]  # (flawed, most): each variant's tokens
        everything = [pair[:3] for pair in self._pairs]
        # Where a token takes its value: from the clean row, at its reference or, outside the target, at its own place.
        self._value_tokens = self._taken(everything).flatten()[rows.places]
        is_target = torch.zeros(rows.num_clean + len(rows.image_indices), self.num_tokens, dtype=torch.bool)
        for row, target, _ in everything:
            is_target[row, target] = True
        of_places = is_target.to(self._device)[rows.num_clean + rows.variants, rows.tokens]
        self._is_target = of_places.flatten()[rows.places][:, :, None, None]
        self._each = torch.arange(len(rows), device=self._device)[:, None]
        self._positions = rows.tokens
        self._recording = False
        self._peak_bytes = 0

    def _taken(self, pairs: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """Return the token that each place of the rows stands for, targets of `pairs` for their references'."""
        rows = self._rows
        tokens = torch.arange(self.num_tokens).repeat(rows.num_clean + len(rows.image_indices), 1)
        for row, target, reference in pairs:
            tokens[row, target] = reference
        return tokens.to(self._device)[rows.num_clean + rows.variants, rows.tokens]

    def prepare(self, text_length: int) -> None:
        """Do nothing: the index tensors of rows of targets do not depend on the text."""

    @property
    def cache_bytes(self) -> int:
        """Peak memory of what attentions recorded in one evaluation, in bytes."""
        return self._peak_bytes

    def end(self) -> None:
        """Forget what was recorded: between evaluations, and for evaluations without injection."""
        super().end()
        self.target_positions = None
        for recording in self.recordings:
            recording.clear()

    def begin_denoising(self, step: int, branch: str, updates: bool = True) -> None:
        """Prepare for the clean rows' pass of an evaluation of denoising step `step`, 0-based."""
        self.end()
        self._recording = len(self._rows) > 0
        self._injecting = step < self._value_steps
        active = self._changed_pairs(step)
        if active is not None:
            self._positions = self._taken(active)

    def begin_targets(self) -> None:
        """Prepare for the pass of the rows of targets, after that of the clean rows."""
        self._recording = False
        self.target_positions = self._positions
        self._peak_bytes = max(self._peak_bytes, sum(recording.num_bytes for recording in self.recordings))

    def inject(
        self, block: int, name: str, query: torch.Tensor, value: torch.Tensor, text_length: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the arguments: values and queries are injected by [`share`]."""
        return query, value

    def rotate(self, states: torch.Tensor, turn: Turn, text_length: int = 0, moves: bool = True) -> torch.Tensor:
        """Rotate queries or keys, in rows of targets by their tokens' positions; see [`InjectionState.rotate`]."""
        if self.target_positions is None:
            return turn(states, None)
        positions = self.target_positions if moves else self._rows.tokens
        # All rows as one, because a family's rotary embedding takes one list of positions for all rows.
        return turn(states.flatten(0, 1)[None], positions.flatten() + text_length)[0].view(states.shape)

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
        """Record the clean rows' keys and values, or attend to those recorded; see [`InjectionState.share`]."""
        injects = takes_values and self._injecting
        rows = self._rows
        if self._recording:
            start = key.shape[1] - self.num_tokens if text_first else 0
            # Contiguous, because a view would keep the whole output of a fused projection.
            recording.key, recording.value = key.contiguous(), value.contiguous()
            recording.mask = None if mask is None else mask[:, :, -1:]
            if injects:
                recording.query = query[rows.sources[:, None], self._own + start]
        if self.target_positions is None:
            return query, key, value, mask
        assert recording.key is not None and recording.value is not None, "clean rows come first"
        query, key, value = (part.flatten(0, 1)[rows.places] for part in (query, key, value))
        start = recording.key.shape[1] - self.num_tokens if text_first else 0
        if injects:
            assert recording.query is not None, "clean rows come first"
            query = torch.where(self._is_target, query, recording.query)
            value = recording.value[rows.sources[:, None], self._value_tokens + start]
        keys, values = recording.key[rows.sources], recording.value[rows.sources]
        keys[self._each, self._own + start], values[self._each, self._own + start] = key, value
        return query, keys, values, None if recording.mask is None else recording.mask[rows.sources]

    def collect(self, output: torch.Tensor) -> torch.Tensor:
        """Put the attention's output of every variant back in the rows of targets."""
        if self.target_positions is None:
            return output
        return output.flatten(0, 1)[self._rows.origins]


def _padded(parts: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """Stack index tensors, each repeating its last entry up to `length`."""
    if not parts:
        return torch.empty(0, length, dtype=torch.long)
    return torch.stack([torch.cat([part, part[-1:].expand(length - len(part))]) for part in parts])
