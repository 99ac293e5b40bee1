"""What a mask of the tutorial's character regex costs at a vocabulary of 152k, at each place where the model has a choice.

The sample is followed byte by byte, which is the worst case: where one text must follow, jump-forward asks for no mask.
"""

from __future__ import annotations

import statistics
import time

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


def main() -> None:
    begin(f"Mask cost: the tutorial's character regex, {VOCABULARY:,} random words")
    tokenizer = random_tokenizer(VOCABULARY)
    compiler = GrammarCompiler(tokenizer, VOCABULARY, [VOCABULARY - 1])
    began = time.perf_counter()
    make = compiler.compile(Constraint("regex", CHARACTER_REGEX)).result()
    print(f"ready after {time.perf_counter() - began:.2f} s, most of it for the vocabulary, once an engine")
    tokens = tokenizer.backend_tokenizer.encode(SAMPLE).ids
    rounds = [fill_times(make(), tokens) for _ in range(ROUNDS)]
    times = sorted(min(at_one_place) * 1e3 for at_one_place in zip(*rounds, strict=True))
    compiler.close()
    median, p90, worst = statistics.median(times), times[int(0.9 * len(times))], times[-1]
    print(f"{len(times)} masks for {len(tokens)} bytes: median {median:.3f} ms, p90 {p90:.3f} ms, worst {worst:.3f} ms")
    ratio(worst / 0.2, 1.0, "worst mask over 0.2 ms", at_most=True)
    ratio(median / 0.2, 1.0, "median mask over 0.2 ms", at_most=True)


if __name__ == "__main__":
    main()
