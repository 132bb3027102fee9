"""Blind votes between folders of images: which of two a person prefers, and how sure that is."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from filelock import FileLock

from evaluate_metrics.functional.intervals import Bootstrap, honest_at_the_ends, interval_of, ratio, resamplings

from ..utils.errors import ArgumentError, UserError, check_choice
from ..utils.seeds import derive_seed
from .folders import Compared, ComparedImage


Choice = Literal["left", "right", "equal"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
_FIELDS = ("voter", "image", "first", "second", "chosen")


@dataclass(frozen=True)
class Ballot:
    """
    Two images that a person is asked about.

    Attributes:
        image (`ComparedImage`): Their name, prompt and files.
        left, right (`int`): Indices of the folders that they are from, which the person is not told.
    """

    image: ComparedImage
    left: int
    right: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Return what is voted on, whatever the sides: the name, and both folders in order."""
        return self.image.name, min(self.left, self.right), max(self.left, self.right)


@dataclass(frozen=True)
class Preference:
    """
    Outcome between two folders.

    Attributes:
        first, second (`str`): Names of the folders.
        share (`float`): Share of votes for the second, where an equal counts half; NaN without votes.
        interval (`tuple[float, float]`): 95 % bootstrap interval over prompts, with all votes on their images; NaN of
            a single prompt.
        votes, equal (`int`): Number of votes, and of those that found both equal.
        voters (`int`): Number of people.
    """

    first: str
    second: str
    share: float
    interval: tuple[float, float]
    votes: int
    equal: int
    voters: int

    def as_text(self) -> str:
        """Write the outcome in a sentence."""
        if not self.votes:
            return f"No votes between {self.first} and {self.second} yet."
        low, high = self.interval
        people = f"{self.voters} {'person' if self.voters == 1 else 'people'}"
        sure = "" if low <= 0.5 <= high else ", which is not chance"
        told = "one prompt, so no interval" if math.isnan(low) else f"95 % interval {low:.0%} to {high:.0%}{sure}"
        return (
            f"**{self.second}** is preferred to {self.first} in {self.share:.0%} of {self.votes} votes of {people} "
            f"({told}); {self.equal} equal."
        )


class Voting:
    """
    Votes between folders, in a file of JSON Lines. Each person gets all images in an order and on sides of their own.

    Args:
        compared (`Compared`): The folders, at least two.
        file (`Path`): File of the votes, which is made with the first and continued.
        seed (`int`, *optional*, defaults to 0): Seed of orders and sides.

    Raises:
        UserError: The file holds votes between other folders.
    """

    def __init__(self, compared: Compared, file: Path, seed: int = 0) -> None:
        self.compared, self.file, self.seed = compared, file, seed
        for vote in self._votes():
            unknown = {vote["first"], vote["second"]} - set(compared.names)
            if unknown:
                raise UserError(
                    f"'{file}' must hold votes between {', '.join(compared.names)}, got some on {sorted(unknown)[0]}; "
                    "choose another file"
                )

    def next(self, voter: str) -> Ballot | None:
        """
        Return what a person is to vote on next; `None` if they have voted on everything.

        Args:
            voter (`str`): Name of the person.

        Raises:
            ArgumentError: The name is empty.
        """
        if not voter.strip():
            raise ArgumentError(f"`voter` must be a name, got {voter!r}; type yours")
        names = self.compared.names
        done = {(vote["image"], _pair(vote)) for vote in self._votes() if vote["voter"] == voter}
        for ballot in self._ballots(voter):
            name, first, second = ballot.key
            if (name, frozenset((names[first], names[second]))) not in done:
                return ballot
        return None

    def vote(self, voter: str, ballot: Ballot, choice: str) -> None:
        """
        Record a vote.

        Args:
            voter (`str`): Name of the person.
            ballot (`Ballot`): What was voted on.
            choice (`str`): `"left"`, `"right"` or `"equal"`.

        Raises:
            UserError: The person has voted on it already.
        """
        check_choice("choice", choice, CHOICES)
        names, (name, first, second) = self.compared.names, ballot.key
        chosen = {"left": names[ballot.left], "right": names[ballot.right], "equal": ""}[choice]
        vote = {
            "voter": voter,
            "image": name,
            "first": names[first],
            "second": names[second],
            "left": names[ballot.left],
            "chosen": chosen,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_name(f"{self.file.name}.lock")):
            done = ((other["voter"], other["image"], _pair(other)) for other in self._votes())
            if (voter, name, _pair(vote)) in done:
                raise UserError(f"'{voter}' has voted on '{name}' already, on another page; go on with the next one")
            torn = self.file.exists() and not self.file.read_bytes().endswith(b"\n") and self.file.stat().st_size > 0
            with self.file.open("a", encoding="utf-8") as file:
                file.write(("\n" if torn else "") + json.dumps(vote, ensure_ascii=False) + "\n")

    def preferences(self, bootstrap: Bootstrap | None = None) -> list[Preference]:
        """
        Return the outcome between each two folders.

        Args:
            bootstrap (`Bootstrap`, *optional*): Settings of the intervals.
        """
        bootstrap = bootstrap or Bootstrap()
        group_of = {image.name: image.group for image in self.compared.images}
        between: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
        for vote in self._votes():
            if vote["image"] in group_of:
                between[_pair(vote)].append(vote)
        return [
            _preference(pair, between[frozenset(pair)], group_of, bootstrap)
            for pair in combinations(self.compared.names, 2)
        ]

    def _ballots(self, voter: str) -> Iterator[Ballot]:
        pairs = list(combinations(range(len(self.compared.names)), 2))
        everything = [(image, pair) for image in self.compared.images for pair in pairs]
        order = np.random.default_rng(derive_seed(self.seed, f"order:{voter}")).permutation(len(everything))
        for index in order:
            image, (first, second) = everything[index]
            turned = derive_seed(self.seed, f"side:{voter}:{image.name}:{first}:{second}") % 2
            yield Ballot(image, second, first) if turned else Ballot(image, first, second)

    def _votes(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        votes = []
        for number, line in enumerate(self.file.read_bytes().split(b"\n"), 1):
            try:
                vote = json.loads(line)
            except ValueError:  # the empty last line, or one that a killed process has torn
                continue
            if not isinstance(vote, dict) or not all(isinstance(vote.get(name), str) for name in _FIELDS):
                raise UserError(f"line {number} of '{self.file}' must be a vote, and is not; choose another file")
            votes.append(vote)
        return votes


def _pair(vote: dict[str, Any]) -> frozenset[str]:
    """Return the folders of a vote, which may be named in another order now."""
    return frozenset((vote["first"], vote["second"]))


def _preference(
    pair: tuple[str, str], votes: list[dict[str, Any]], group_of: dict[str, str], bootstrap: Bootstrap
) -> Preference:
    first, second = pair
    groups = sorted({group_of[vote["image"]] for vote in votes})
    place = {group: number for number, group in enumerate(groups)}
    for_second, total = np.zeros(len(groups)), np.zeros(len(groups))
    for vote in votes:
        total[place[group_of[vote["image"]]]] += 1
        for_second[place[group_of[vote["image"]]]] += {second: 1.0, "": 0.5}.get(vote["chosen"], 0.0)
    if not votes:
        return Preference(first, second, math.nan, (math.nan, math.nan), 0, 0, 0)
    share = float(for_second.sum() / total.sum())
    values = np.array(
        [ratio(weights @ for_second, weights @ total) for weights in resamplings(len(groups), bootstrap)]
    )
    low, high = honest_at_the_ends(share, interval_of(values, bootstrap), len(groups), bootstrap)
    if len(groups) == 1:  # of which nothing is known
        low = high = math.nan
    return Preference(
        first,
        second,
        share,
        (low, high),
        len(votes),
        sum(not vote["chosen"] for vote in votes),
        len({vote["voter"] for vote in votes}),
    )
