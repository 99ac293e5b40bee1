"""What a mask of the tutorial's character regex costs at a vocabulary of 152k, at each place where the model has a choice.

A first text and then another, whose masks are kept where it is in a state that the first has been in: as they are used, with the
masks that are made ahead on a thread beside, and with none of these. Texts are followed byte by byte, which is the worst
case: where one text must follow, jump-forward asks for no mask.
"""

from __future__ import annotations

import statistics
import time
from unittest.mock import patch

from kernel_engine import grammar
from kernel_engine.grammar import GrammarCompiler
from kernel_engine.matchers import Matcher
from kernel_engine.sampling_params import Constraint

from .common import CHARACTER_REGEX, begin, random_tokenizer, ratio

VOCABULARY, ROUNDS = 151936, 5
SAMPLE = """{
    "name": "Harry James Pott",
    "house": "Gryffindor",
    "blood status": "Half-blood",
    "occupation": "student",
    "wand": {
        "wood": "Holly and oak",
        "core": "Phoenix feather",
        "length": 11.0
    },
    "alive": "Alive",
    "patronus": "Stag",
    "bogart": "Dementor"
}"""


OTHER = (
    SAMPLE.replace("Harry James Pott", "Hermione J Grang").replace("Gryffindor", "Hufflepuff").replace("Stag", "Hare")
)


def fill_times(matcher: Matcher, tokens: list[int]) -> list[float]:
    """Seconds of each mask along `tokens` where more than one text can follow."""
    import xgrammar

    mask = xgrammar.allocate_token_bitmask(1, VOCABULARY)
    times = []
    for token in tokens:
        if not matcher.forced():
            began = time.perf_counter()
            matcher.fill(mask, 0)
            times.append(time.perf_counter() - began)
        if not matcher.accept(token):
            raise ValueError(f"the sample does not match at {token}")
    return times


def least_times(rounds: list[list[float]]) -> list[float]:
    """For each place the least time of all rounds, ascending, in milliseconds."""
    return sorted(min(at_one_place) * 1e3 for at_one_place in zip(*rounds, strict=True))


def main() -> None:
    begin(f"Mask cost: the tutorial's character regex, {VOCABULARY:,} random words")
    tokenizer = random_tokenizer(VOCABULARY)
    compiler = GrammarCompiler(tokenizer, VOCABULARY, [VOCABULARY - 1])
    constraint = Constraint("regex", CHARACTER_REGEX)
    began = time.perf_counter()
    compiler.compile(constraint).result()
    print(f"ready after {time.perf_counter() - began:.2f} s, most of it for the vocabulary, once an engine")
    began = time.perf_counter()
    compiler.wait_until_made()
    print(f"masks made ahead for {time.perf_counter() - began:.2f} s on another thread, once an expression")
    first, other = (tokenizer.backend_tokenizer.encode(text).ids for text in (SAMPLE, OTHER))
    for ahead in (False, True):
        rounds: list[tuple[list[float], list[float]]] = []
        for _ in range(ROUNDS):
            compiler.clear()  # and with it all masks
            with patch.object(grammar, "AHEAD_AT_ONCE", int(ahead)):
                make = compiler.compile(constraint).result()
                compiler.wait_until_made()
            rounds.append((fill_times(make(), first), fill_times(make(), other)))
        for name, times in zip(("first", "next"), map(least_times, map(list, zip(*rounds, strict=True))), strict=True):
            name += " text, made ahead" if ahead else " text, none made ahead"
            median, p90, worst = statistics.median(times), times[int(0.9 * len(times))], times[-1]
            print(f"{len(times)} masks of the {name}: median {median:.3f} ms, p90 {p90:.3f} ms, worst {worst:.3f} ms")
            ratio(worst / 0.2, 1.0, f"worst mask of the {name}, over 0.2 ms", at_most=True)
            ratio(median / 0.2, 1.0, f"median mask of the {name}, over 0.2 ms", at_most=True)
    compiler.close()


if __name__ == "__main__":
    main()
