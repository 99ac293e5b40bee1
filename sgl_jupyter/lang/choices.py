"""How `select` chooses: the three methods, each a rule over the log-probabilities of the choices' tokens.

All logarithms are natural. Every method sees exactly the tokens that a choice adds to the prompt, each with its probability.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sgl_jupyter.backends.base import ChoiceScore, TokenLogprob


@dataclass(frozen=True)
class ChoicesDecision:
    """The choice that was made, and the numbers behind it."""

    decision: str
    meta_info: dict[str, Any] | None = None


class ChoicesSamplingMethod(ABC):
    """A rule that picks one of the choices. Subclass it to write your own."""

    @property
    def requires_unconditional_logprobs(self) -> bool:
        """Whether the rule also needs the choices scored without the prompt."""
        return False

    @abstractmethod
    def __call__(
        self,
        *,
        choices: list[str],
        normalized_prompt_logprobs: list[float],
        input_token_logprobs: list[list[TokenLogprob]],
        output_token_logprobs: list[list[TokenLogprob]],
        unconditional_token_logprobs: list[list[TokenLogprob]] | None = None,
    ) -> ChoicesDecision:
        """Decide.

        Args:
            choices: the texts to choose from.
            normalized_prompt_logprobs: for each choice, the mean log-probability of its tokens after the prompt.
            input_token_logprobs: for each choice, its tokens as (log-probability, id, text).
            output_token_logprobs: an empty list for each choice, since nothing is generated.
            unconditional_token_logprobs: the same tokens without the prompt; the first one's log-probability is None.
        """

    def __repr__(self) -> str:
        return type(self).__name__


class TokenLengthNormalized(ChoicesSamplingMethod):
    """Picks the choice whose tokens have the highest mean log-probability."""

    def __call__(
        self,
        *,
        choices,
        normalized_prompt_logprobs,
        input_token_logprobs,
        output_token_logprobs,
        unconditional_token_logprobs=None,
    ) -> ChoicesDecision:
        return ChoicesDecision(
            choices[_argmax(normalized_prompt_logprobs)],
            _meta_info(normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs),
        )


class GreedyTokenSelection(ChoicesSamplingMethod):
    """Goes token by token, keeping the choices whose token is the most probable, until one is left.

    A choice that has no more tokens goes on with its own mean.
    """

    def __call__(
        self,
        *,
        choices,
        normalized_prompt_logprobs,
        input_token_logprobs,
        output_token_logprobs,
        unconditional_token_logprobs=None,
    ) -> ChoicesDecision:
        length = max(map(len, input_token_logprobs))
        matrix = []
        for tokens in input_token_logprobs:
            row = [_logprob(token) for token in tokens]
            matrix.append(row + [fmean(row)] * (length - len(row)))
        remaining = list(range(len(choices)))
        for column in range(length):
            best = max(matrix[i][column] for i in remaining)
            remaining = [i for i in remaining if matrix[i][column] == best]
        meta_info = _meta_info(normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs)
        return ChoicesDecision(choices[remaining[0]], meta_info | {"greedy_logprob_matrix": matrix})


class UnconditionalLikelihoodNormalized(ChoicesSamplingMethod):
    """Picks the choice that the prompt makes most more probable than it is by itself, in the mean over its tokens.

    Known as acontext normalization in Brown et al. 2020 (arXiv:2005.14165), section 2.4, and as pointwise mutual information.
    """

    @property
    def requires_unconditional_logprobs(self) -> bool:
        return True

    def __call__(
        self,
        *,
        choices,
        normalized_prompt_logprobs,
        input_token_logprobs,
        output_token_logprobs,
        unconditional_token_logprobs=None,
    ) -> ChoicesDecision:
        if unconditional_token_logprobs is None:
            raise ValueError("Unconditional token logprobs are required for this method.")
        gains = [
            fmean(_logprob(given) - _logprob(alone) for given, alone in zip(given_prompt, alone_tokens, strict=True))
            for given_prompt, alone_tokens in zip(input_token_logprobs, unconditional_token_logprobs, strict=True)
        ]
        meta_info = _meta_info(normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs)
        return ChoicesDecision(
            choices[_argmax(gains)],
            meta_info
            | {
                "unconditional_token_logprobs": unconditional_token_logprobs,
                "normalized_unconditional_prompt_logprobs": gains,
            },
        )


token_length_normalized = TokenLengthNormalized()
greedy_token_selection = GreedyTokenSelection()
unconditional_likelihood_normalized = UnconditionalLikelihoodNormalized()


def decide(method: ChoicesSamplingMethod, choices: Sequence[str], scores: Sequence[ChoiceScore]) -> ChoicesDecision:
    """Let `method` choose by what the backend measured."""
    given_prompt = [score.given_prompt for score in scores]
    alone = [score.alone for score in scores if score.alone is not None]
    return method(
        choices=list(choices),
        normalized_prompt_logprobs=[fmean(map(_logprob, tokens)) for tokens in given_prompt],
        input_token_logprobs=given_prompt,
        output_token_logprobs=[[] for _ in choices],
        unconditional_token_logprobs=alone or None,
    )


def _logprob(token: TokenLogprob) -> float:
    """A token with nothing before it has no probability; it counts for nothing."""
    return 0.0 if token[0] is None else token[0]


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _meta_info(normalized: list[float], inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
    """SGLang's numbers, and `choice_probabilities`: how probable each choice is, given that it is one of them."""
    totals = [sum(map(_logprob, tokens)) for tokens in inputs]
    shares = [math.exp(total - max(totals)) for total in totals]
    return {
        "normalized_prompt_logprobs": normalized,
        "input_token_logprobs": inputs,
        "output_token_logprobs": outputs,
        "choice_probabilities": [share / sum(shares) for share in shares],
    }
