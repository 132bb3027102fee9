"""Plurals and possessives of English nouns."""

from __future__ import annotations


_IRREGULAR_PLURALS = {
    "calf": "calves",
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "half": "halves",
    "knife": "knives",
    "leaf": "leaves",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "sheep": "sheep",
    "shelf": "shelves",
    "tooth": "teeth",
    "wolf": "wolves",
    "woman": "women",
}
# Singular although they end in "s"; so are all nouns in "ss", "us" and "is".
_SINGULAR_IN_S = ("atlas", "canvas", "gas", "lens")

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def is_plural(noun: str) -> bool:
    """Tell whether a noun, of one or several words, is a plural by its form."""
    last = noun.split()[-1] if noun else ""
    if last in _IRREGULAR_PLURALS.values():
        return True
    return last.endswith("s") and not last.endswith(("ss", "us", "is")) and last not in _SINGULAR_IN_S


def plural(noun: str) -> str:
    """Return the plural of a noun of one or several words; a plural stays what it is."""
    if is_plural(noun):
        return noun
    *first, last = noun.split()
    return " ".join([*first, _IRREGULAR_PLURALS.get(last) or _regular_plural(last)])


def possessive(noun: str) -> str:
    """Return the possessive of a noun: `"cat's"`, `"scissors'"`, `"bus's"`."""
    return f"{noun}'" if is_plural(noun) and noun.endswith("s") else f"{noun}'s"


def spelled_out(number: int) -> str:
    """Return a count in words below ten, else in digits."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def capitalized(sentence: str) -> str:
    """Return a sentence with its first letter in upper case and the others as they are."""
    return sentence[:1].upper() + sentence[1:]


def _regular_plural(word: str) -> str:
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
