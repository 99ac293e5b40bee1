"""Small seeded helpers that the dialogue generators share: numbers, made-up names, casual spelling."""

from __future__ import annotations

from random import Random

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

_ONSETS = tuple("bcdfghjklmnprstvwzy") + tuple(
    "bl br ch cl cr dr fl gl gr kl kr pl pr qu sh sk sl sp st th tr".split()  # noqa: SIM905
)
_VOWELS = (*"aeiouaeiou", "ai", "ea", "ee", "ei", "ia", "ie", "io", "oa", "oo", "ou", "y")
_CODAS = ("", "", "", "", *"lmnrstxkd", "ck", "ll", "nd", "ng", "nk", "nt", "rd", "rk", "rn", "rt", "ss", "st", "th")
_ENDINGS = ("", "", "", "ia", "land", "stan", "ville", "burg", "ton", "ham", "son", "ski", "ez", "o", "us", "ora")


def number(rng: Random, n: int) -> str:
    """`n` as a numeral or a word."""
    return NUMBER_WORDS[n] if n < len(NUMBER_WORDS) and rng.random() < 0.4 else str(n)


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def made_up_name(rng: Random) -> str:
    """A name that is, most likely, nobody's."""
    syllables = rng.choice((1, 1, 1, 2, 2))
    stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    return capitalised(stem + rng.choice(_ENDINGS))


def casually(rng: Random, text: str) -> str:
    """Some users write in lower case, or leave the last mark out."""
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip(".?!")
    return text
