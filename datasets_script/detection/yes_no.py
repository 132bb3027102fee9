"""Reading whether a text says that there are artifacts."""

from __future__ import annotations

import re
from itertools import takewhile


class AnswerError(ValueError):
    """An answer that cannot be used; the message gives the reason."""


class UnsaidError(AnswerError):
    """An answer that says neither that there are artifacts nor that there are none."""


_NOUNS = frozenset(
    "artifact artifacts artefact artefacts flaw flaws defect defects anomaly anomalies distortion distortions "
    "deformity deformities irregularity irregularities inconsistency inconsistencies glitch glitches issue issues "
    "problem problems".split()
)
_NEGATORS = frozenset("no not without free lack lacks lacking none zero cannot absence neither nor never".split())
_AFFIRMING = frozenset(
    "are is was were has have having contains contain containing shows show showing exhibits exhibit displays display "
    "includes include see detect detected find found observe observed notice noticed identify identified spot spotted "
    "presents present visible yes".split()
)
# Words that may stand between a negation or a verb and its noun without changing the meaning. A negation before any
# other word may be about something else ("the hand is not right and has artifacts"), so it counts as not understood.
_LINKS = (
    _AFFIRMING
    | _NOUNS
    | frozenset(
        "a an and or any some several many multiple few one two three the of to in i we it this that there here image "
        "picture photo photograph do does did can could be been seem seems appear appears think believe sign signs "
        "evidence presence instances visual obvious apparent clear clearly noticeable significant discernible evident "
        "structural major minor severe serious perceptible detectable unnatural strange ai generated s actually "
        "really likely probably following from".split()
    )
)
# Far more than any sentence has. Models that repeat one word endlessly produce thousands.
_MOST_LINKS = 20
_CONDITIONS = frozenset("if whether for".split())
_AFTER = frozenset("present visible detected found seen noticeable apparent evident there observed".split())
# Words that end a denial after its noun: "artifacts are not present", "artifacts do not appear", "artifact-free".
_ENDS = _AFTER | frozenset("appear exist free".split())
# Words that begin another statement about the noun: "artifacts that cannot be found in photos".
_JOINTS = frozenset("and or that".split())
_PLACES = frozenset("in on around near at elsewhere with within along outside besides".split())
_WHOLE = frozenset("image picture photo photograph it this here".split())
# Subjects whose denial is one of the whole image: "closer inspection shows no artifacts".
_WHOLE_SUBJECTS = _WHOLE | frozenset("there i we everything scene analysis inspection examination review".split())
_VERBS = _AFFIRMING - frozenset("visible yes".split()) | frozenset("do does did can could".split())
_IN_IMAGE = re.compile(r"\b(?:in|of|on) (?:the |this )?(?:image|picture|photo|photograph)\b")

_MARKED = re.compile(
    r"\b(?:has_?artifacts?|artifacts?[_ ]?(?:present|detected)|contains_?artifacts?|artifacts?|final answer|answer"
    r"|verdict|response|detection|result|prediction)[\"'*]*\s*(?:is\s*:?|:|=)[\s\"'*]*(yes|no|true|false|none|1|0)\b"
    r"(?=[\s\"'*.]*(?:$|[\n,;}\])]|(?:visual |visible )?artifacts?\b))",
    re.IGNORECASE,
)
_MARKED_LIST = re.compile(r"[\"']artifacts?[\"']\s*:\s*\[\s*(\]?)", re.IGNORECASE)
_LONE = re.compile(
    r"^[^\w\n]*(?:boxed\{)?(?:\\text\{)?(?:there (?:is|are) )?(yes|no|none|true|false)[^\w\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
LEAD = re.compile(
    r"^\W*(?:(yes|yeah|yep|true)\b|(no|nope|none|false)\b(?=\s*(?:$|[^\w\s]|(?:there|the|this|it|i|that)\b)))",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\byes\s+and\s+no\b", re.IGNORECASE)
_CHOICE = re.compile(r"[\"']?\byes[\"']?\s*(?:or|/)\s*[\"']?no\b[\"']?", re.IGNORECASE)
_QUESTION = re.compile(r"(?:^|(?<=[.!?\n]))[^.!?\n]*\?")
_CONTRAST = re.compile(
    r"\b(?:but|however|except|although|though|yet|nevertheless|nonetheless|despite|apart from|aside from"
    r"|other than)\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"\b(?:not (?:entirely |completely |quite )?(?:sure|certain|clear)|unsure|uncertain|unclear|unable to|it depends"
    r"|(?:cannot|can't|can not|could not|couldn't) (?:definitively |reliably |really )?(?:be determined|determine|tell"
    r"|say|judge|assess)|(?:hard|difficult|impossible) to (?:tell|say|determine|judge))\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|possibl[ey]|(?:may|might|could) (?:be|have|contain|show|indicate|suggest))\b", re.IGNORECASE
)
_WORD = re.compile(r"[a-z]+(?:'t)?")


def read_yes_no(text: str) -> bool:
    """
    Read whether an answer says that there are artifacts.

    Explicit answers decide: a field (`"has_artifact": false`, `Answer: Yes`), a line of a single word, or the first
    word. Without one, or to confirm a first word, sentences such as "I do not see any visible artifacts" are read. If
    two of these disagree, or a "no" continues with "but" or "however", the answer cannot be used.

    Args:
        text (`str`): The answer.

    Raises:
        UnsaidError: It says neither yes nor no.
        AnswerError: It says both, is undecided, or cannot be understood.
    """
    if _BOTH.search(text):
        raise AnswerError("it says both yes and no")
    text = _QUESTION.sub(" ", _CHOICE.sub(" ", text.replace("’", "'")))
    lead = LEAD.search(text)
    decided = _decided(text)
    outright = decided | ({bool(lead[1])} if lead else set())
    if len(outright) > 1:
        raise AnswerError("it says both yes and no")
    if decided:
        return decided.pop()
    if _UNDECIDED.search(text):
        raise AnswerError("it does not decide")
    rest = text[lead.end() :] if lead else text
    says = outright | statements(rest)
    if len(says) > 1:
        raise AnswerError("it says both that there are artifacts and that there are none")
    if not says:
        raise UnsaidError("it says neither yes nor no")
    if not lead and _HEDGED.search(text):
        raise AnswerError("it does not decide")
    answer = says.pop()
    if not answer and _CONTRAST.search(rest if lead else _after_negation(rest)):
        raise AnswerError("it says no, and then takes something of it back")
    return answer


def statements(text: str) -> set[bool]:
    """
    Collect what the sentences of a text say about artifacts.

    Args:
        text (`str`): The text.

    Returns:
        `set[bool]`: `True` if a sentence says that there are some, `False` if one says that the image as a whole has
        none.

    Raises:
        AnswerError: A negation is not understood.
    """
    found = set()
    for sentence in re.split(r"[.!;\n]|\bbut\b|\bhowever\b", text.lower()):
        words = _WORD.findall(sentence)
        says = [_statement(words, index) for index, word in enumerate(words) if word in _NOUNS]
        found |= {said for said in says if said is not None}
    return found


def _statement(words: list[str], noun: int) -> bool | None:
    start = noun
    while start > max(0, noun - _MOST_LINKS) and (words[start - 1] in _LINKS or _is_negator(words[start - 1])):
        start -= 1
    before, after = words[start:noun], words[noun + 1 :]
    if start and words[start - 1] in _CONDITIONS:
        return None
    tail = _tail(after)
    denied_after = any(map(_is_negator, tail))
    negations = sum(map(_is_negator, before)) + sum(map(_is_negator, tail))
    affirms = any(word in _AFFIRMING for word in before) or bool(_AFTER.intersection(tail))
    # "There are artifacts, not seen in photos" does not deny artifacts.
    is_mixed = any(map(_is_negator, after[len(tail) : len(tail) + 1])) or (
        denied_after and tail != ["free"] and (_ENDS.isdisjoint(tail) or not _VERBS.isdisjoint(before))
    )
    if negations > 1 or is_mixed or (not negations and affirms and any(map(_is_negator, words[:start]))):
        raise AnswerError("it has a negation that is not understood")
    if negations:
        return None if _is_elsewhere(after) or _is_of_a_part(words[:noun], before) else False
    return True if affirms else None


def _tail(after: list[str]) -> list[str]:
    """Return the words after a noun that still belong to its statement, such as "are not present"."""
    tail = list(takewhile(lambda word: (word in _LINKS | _ENDS or _is_negator(word)) and word not in _JOINTS, after))
    end = next((index for index, word in enumerate(tail) if word in _ENDS), len(tail))
    return tail[: end + 1]


def _is_of_a_part(words: list[str], before: list[str]) -> bool:
    """Return whether a denial is about something in the image: "the face in this image has no artifacts"."""
    subject = _IN_IMAGE.sub(" ", " ".join(words)).split()
    named = [word for word in subject if word not in _LINKS and not _is_negator(word)]
    return bool(named) and not _VERBS.isdisjoint(before) and _WHOLE_SUBJECTS.isdisjoint(subject)


def _is_negator(word: str) -> bool:
    return word in _NEGATORS or word.endswith("n't")


def _is_elsewhere(after: list[str]) -> bool:
    """Return whether the words after "no artifacts" name a place that is not the whole image."""
    return bool(after) and after[0] in _PLACES and not _WHOLE.intersection(after[1:6])


def _decided(text: str) -> set[bool]:
    words = [match[1].lower() for pattern in (_MARKED, _LONE) for match in pattern.finditer(text)]
    return {word in ("yes", "true", "1") for word in words} | {not match[1] for match in _MARKED_LIST.finditer(text)}


def _after_negation(text: str) -> str:
    """
    Return the text from its first negation: "although it is stylised, there are no artifacts" takes nothing back.
    """
    negation = re.search(r"\b(?:no|not|without|free|lacks?|none|cannot|\w+n't)\b", text, re.IGNORECASE)
    return text[negation.start() :] if negation else text
