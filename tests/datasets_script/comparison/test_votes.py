"""Blind votes: everybody votes on everything once, on sides that tell nothing, and results have intervals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_script.comparison.folders import Compared, match_folders
from datasets_script.comparison.votes import Voting
from datasets_script.utils.errors import ArgumentError, UserError


COUNT = 12


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    for folder, level in (("base", 10), ("best", 200)):
        (tmp_path / folder).mkdir()
        for number in range(COUNT):
            Image.new("RGB", (8, 8), (level, number, 0)).save(tmp_path / folder / f"{number:02d}.png")
    return match_folders([tmp_path / "base", tmp_path / "best"])


def vote_on_everything(voting: Voting, voter: str, favourite: str) -> list[tuple[str, int]]:
    """Vote for a folder wherever it is, or for neither; return name and left folder of each ballot."""
    shown = []
    while ballot := voting.next(voter):
        shown.append((ballot.image.name, ballot.left))
        left = voting.compared.names[ballot.left]
        voting.vote(voter, ballot, "left" if left == favourite else "right" if favourite else "equal")
    return shown


def test_everybody_votes_on_everything_once_and_blindly(compared: Compared, tmp_path: Path) -> None:
    voting = Voting(compared, tmp_path / "votes.jsonl")
    ann, ben = (vote_on_everything(voting, name, "best") for name in ("ann", "ben"))
    assert sorted(name for name, _ in ann) == [f"{number:02d}" for number in range(COUNT)]
    assert [name for name, _ in ann] != [name for name, _ in ben] and dict(ann) != dict(ben)
    assert 0 < sum(left for _, left in ann) < COUNT
    (outcome,) = voting.preferences()
    assert (outcome.first, outcome.second, outcome.share) == ("base", "best", 1.0)
    assert (outcome.votes, outcome.voters, outcome.equal) == (2 * COUNT, 2, 0)
    # All are for one side, so the interval is Wilson's, over the images and not over the votes.
    assert outcome.interval == (pytest.approx(1 - 3.8415 / (COUNT + 3.8415), abs=1e-3), 1.0)
    assert "preferred to base in 100% of 24 votes of 2 people" in outcome.as_text()
    assert "which is not chance" in outcome.as_text()


def test_votes_that_disagree_have_a_wide_interval(compared: Compared, tmp_path: Path) -> None:
    voting = Voting(compared, tmp_path / "votes.jsonl")
    assert "No votes between base and best yet" in voting.preferences()[0].as_text()
    vote_on_everything(voting, "cem", "")
    assert (voting.preferences()[0].share, voting.preferences()[0].equal) == (0.5, COUNT)
    rng = np.random.default_rng(0)
    while ballot := voting.next("ann"):
        voting.vote("ann", ballot, str(rng.choice(["left", "right"])))
    low, high = voting.preferences()[0].interval
    assert low < voting.preferences()[0].share < high and "not chance" not in voting.preferences()[0].as_text()


def test_a_file_is_continued_and_a_torn_line_costs_one_vote(compared: Compared, tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    voting = Voting(compared, file)
    first = voting.next("ann")
    assert first is not None
    voting.vote("ann", first, "equal")
    with pytest.raises(UserError, match="'ann' has voted on"):
        voting.vote("ann", first, "left")
    file.write_text(file.read_text() + '{"voter": "ann", "ima')
    again = Voting(compared, file)
    assert again.next("ann") != first and len(vote_on_everything(again, "ann", "base")) == COUNT - 1
    assert again.preferences()[0].votes == COUNT
    # Torn within a letter, and with the folders in another order.
    file.write_bytes(file.read_bytes() + '{"voter": "é'.encode()[:-1])
    turned = Voting(replace(compared, names=compared.names[::-1]), file)
    assert turned.next("ann") is None and turned.preferences()[0].votes == COUNT
    assert turned.preferences()[0].share == pytest.approx(1 - again.preferences()[0].share)
    line = json.loads(file.read_text(errors="replace").splitlines()[0])
    assert line["voter"] == "ann" and line["chosen"] == "" and line["left"] in ("base", "best") and line["at"]


def test_of_a_single_prompt_no_interval_is_told(compared: Compared, tmp_path: Path) -> None:
    of_one = replace(compared, images=tuple(replace(image, group="0") for image in compared.images))
    voting = Voting(of_one, tmp_path / "votes.jsonl")
    vote_on_everything(voting, "ann", "best")
    (outcome,) = voting.preferences()
    assert outcome.share == 1 and math.isnan(outcome.interval[0])
    assert "(one prompt, so no interval)" in outcome.as_text() and "chance" not in outcome.as_text()


def test_votes_between_other_folders_and_wrong_arguments_are_refused(compared: Compared, tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text('{"voter": "a", "image": "00", "first": "base", "second": "other", "chosen": ""}\n')
    with pytest.raises(UserError, match="must hold votes between base, best, got some on other"):
        Voting(compared, file)
    file.write_text('{"id": "00", "score": 1}\n')
    with pytest.raises(UserError, match="line 1 of '.*votes.jsonl' must be a vote"):
        Voting(compared, file)
    voting = Voting(compared, tmp_path / "new.jsonl")
    ballot = voting.next("ann")
    assert ballot is not None
    with pytest.raises(ArgumentError, match="`choice` must be among left, right, equal, got 'both'"):
        voting.vote("ann", ballot, "both")
    with pytest.raises(ArgumentError, match="`voter` must be a name"):
        voting.next(" ")
