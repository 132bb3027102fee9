"""Progress of an annotation, and how far annotators agree."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from evaluate_metrics.functional.agreement import box_agreement, cohen_kappa

from .queue import OPEN, AnnotationQueue
from .records import Answer, Marking


@dataclass(frozen=True)
class PersonProgress:
    """
    What one person did.

    Attributes:
        name (`str`): Name of the person.
        classified, decided, marked (`int`): Answers in each phase.
        seconds_to_classify, seconds_to_mark (`float`): Medians, NaN without answers.
    """

    name: str
    classified: int
    decided: int
    marked: int
    seconds_to_classify: float
    seconds_to_mark: float


@dataclass(frozen=True)
class Agreement:
    """
    Agreement of two annotators on the items that both answered.

    Attributes:
        first, second (`str`): Their names.
        classified (`int`): Items that both classified.
        kappa (`float`): Cohen's kappa of their verdicts; see [`~evaluate_metrics.functional.agreement.cohen_kappa`].
        marked (`int`): Items that both marked.
        box_f1 (`float`): F1 between their boxes at an IoU of .5; see
            [`~evaluate_metrics.functional.agreement.box_agreement`].
    """

    first: str
    second: str
    classified: int
    kappa: float
    marked: int
    box_f1: float


@dataclass(frozen=True)
class Progress:
    """
    State of a queue.

    Attributes:
        items (`int`): Number of images.
        yes, no, open (`int`): Images with artifacts, without, and those that an admin has to decide on.
        marked (`int`): Images with artifacts that enough people have marked.
        people (`tuple[PersonProgress, ...]`): What each person did.
        agreements (`tuple[Agreement, ...]`): Agreement of each two that share an item.
    """

    items: int
    yes: int
    no: int
    open: int
    marked: int
    people: tuple[PersonProgress, ...]
    agreements: tuple[Agreement, ...]

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left to do."""
        return self.yes + self.no == self.items and self.marked == self.yes

    def as_text(self) -> str:
        """Write the state in Markdown."""
        left = self.items - self.yes - self.no - self.open
        lines = [
            f"**{self.items} images**: {self.yes} with artifacts, {self.no} without, {self.open} for an admin, {left} "
            f"to classify. Of those with artifacts, {self.marked} are marked and {self.yes - self.marked} are left.",
            "",
            "| person | classified | median | decided | marked | median |",
            "|---|---|---|---|---|---|",
            *(
                f"| {one.name} | {one.classified} | {_seconds(one.seconds_to_classify)} | {one.decided} | "
                f"{one.marked} | {_seconds(one.seconds_to_mark)} |"
                for one in self.people
            ),
        ]
        if self.agreements:
            lines += [
                "",
                "| two people | classified by both | Cohen's κ | marked by both | box F1 at IoU .5 |",
                "|---|---|---|---|---|",
                *(
                    f"| {one.first}, {one.second} | {one.classified} | {_figure(one.kappa)} | {one.marked} | "
                    f"{_figure(one.box_f1)} |"
                    for one in self.agreements
                ),
                "",
                "Expect people to agree far less on boxes than on images: F1 .28 in SDG-30K (arXiv 2606.06113).",
            ]
        return "\n".join(lines)


def progress(queue: AnnotationQueue) -> Progress:
    """Count what is done in a queue, and measure how far its annotators agree."""
    items, answers = queue.items(), queue.answers()
    by_person: dict[str, list[Answer]] = defaultdict(list)
    times_marked: dict[str, int] = defaultdict(int)
    for answer in answers:
        by_person[answer.annotator].append(answer)
        times_marked[answer.item] += answer.phase == "mark"
    count = {verdict: sum(item.verdict == verdict for item in items) for verdict in ("yes", "no", OPEN)}
    enough = queue.settings.mark_overlap
    return Progress(
        items=len(items),
        yes=count["yes"],
        no=count["no"],
        open=count[OPEN],
        marked=sum(item.verdict == "yes" and times_marked[item.id] >= enough for item in items),
        people=tuple(_of_person(name, by_person[name]) for name in sorted(by_person)),
        agreements=tuple(_agreements(by_person)),
    )


def _of_person(name: str, answers: list[Answer]) -> PersonProgress:
    seconds = {
        phase: [one.seconds for one in answers if one.phase == phase] for phase in ("classify", "decide", "mark")
    }
    return PersonProgress(
        name,
        len(seconds["classify"]),
        len(seconds["decide"]),
        len(seconds["mark"]),
        median(seconds["classify"]) if seconds["classify"] else math.nan,
        median(seconds["mark"]) if seconds["mark"] else math.nan,
    )


def _agreements(by_person: Mapping[str, list[Answer]]) -> list[Agreement]:
    verdicts = {
        name: {one.item: str(one.content) for one in of if one.phase == "classify"} for name, of in by_person.items()
    }
    boxes = {
        name: {one.item: [mark.box for mark in one.content.marks] for one in of if isinstance(one.content, Marking)}
        for name, of in by_person.items()
    }
    found = []
    for first, second in combinations(sorted(by_person), 2):
        both = sorted(verdicts[first].keys() & verdicts[second].keys())
        marked = sorted(boxes[first].keys() & boxes[second].keys())
        if both or marked:
            kappa = cohen_kappa([verdicts[first][item] for item in both], [verdicts[second][item] for item in both])
            f1 = box_agreement([boxes[first][item] for item in marked], [boxes[second][item] for item in marked])
            found.append(Agreement(first, second, len(both), kappa, len(marked), f1))
    return found


def _seconds(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds:.0f} s"


def _figure(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:.2f}".replace("0.", ".", 1)
