"""What is written in the images: short words, numbers and letters; one word in eight is kept for the evaluation."""

from __future__ import annotations

from functools import cache
from random import Random
from zlib import crc32

from training.dialogue import Split
from training.facts import words

LONGEST = 7
SIGNS = (
    "stop open closed exit enter push pull go yes no hello hi bye world hey ok help start end up down left right in out "
    "on off sale free new hot cold cat dog sun sky sea red blue green taxi bus bank park stay wait slow fast home menu "
    "cafe bar inn zoo love peace test data code print save load error ready danger caution warning private welcome thanks "
    "please one two three four five six seven eight nine ten win lose play pause next back jump run walk kernel engine "
    "model image text word token cache tree shape count apple fish bird milk tea cup box hat pen map key toy egg ant bee "
    "cow pig owl fox bat rat man boy girl king queen moon star rain snow wind fire ice wood rock sand gold iron"
)


@cache
def dictionary(split: Split) -> tuple[str, ...]:
    """The words of a split, in lower case; which split a word is in depends on the word alone."""
    known = {*SIGNS.split(), *words("nouns"), *words("adjectives"), *words("verbs")}
    short = sorted(w for w in known if w.isascii() and w.isalpha() and w.islower() and 2 <= len(w) <= LONGEST)
    return tuple(w for w in short if (crc32(w.encode()) % 8 == 0) == (split == "held_out"))


def cased(rng: Random, word: str) -> str:
    """Signs are mostly in capitals."""
    form = rng.random()
    return word.upper() if form < 0.55 else word.capitalize() if form < 0.78 else word


def random_letters(rng: Random, length: int) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))


def pick_word(rng: Random, split: Split) -> str:
    """A word of the dictionary, short ones more often; in training one in five is made of random letters."""
    if split == "train" and rng.random() < 0.2:
        return cased(rng, random_letters(rng, rng.randint(2, 5)))
    pool = rng.sample(dictionary(split), 2)
    return cased(rng, min(pool, key=len))


def pick_text(rng: Random, split: Split) -> tuple[str, str]:
    """What one calls it, and the text itself."""
    form = rng.random()
    if form < 0.58:
        return "word", pick_word(rng, split)
    if form < 0.9:
        digits = rng.choice((1, 1, 1, 2, 2, 3, 4))
        return "number", "".join(rng.choice("0123456789") for _ in range(digits)) if digits < 2 else str(
            rng.randint(10 ** (digits - 1), 10**digits - 1)
        )
    if form < 0.96:
        return "letter", rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return "words", f"{pick_word(rng, split)} {pick_word(rng, split)}"
