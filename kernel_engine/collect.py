"""From a step's logits to each sequence's next tokens: scoring, constraints, sampling, and the rules by which a text ends."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from . import logprobs, sampling
from .batch import Batch
from .errors import RequestError
from .grammar import Matcher, jump_forward
from .model import Model
from .request import Sequence, aborted, finished_by_length, finished_by_stop

NO_TOKEN = "the constraint and the sampling parameters allow no token"
NOT_A_NUMBER = "the model's logits are not a number (NaN)"
REFUSED = "the constraint refused a token that it had asked for; does it spell a special token?"


class Collector:
    """Follows every running sequence's constraint and decides when it has finished. Lives on the engine's thread."""

    def __init__(self, model: Model):
        self._model, self._tokenizer = model, model.tokenizer.backend_tokenizer
        self._filling = ThreadPoolExecutor(1, thread_name_prefix="masks")

    def close(self) -> None:
        self._filling.shutdown(wait=False)

    def begin(self, sequence: Sequence) -> None:
        """Give a new sequence the tokens that its constraint forces before the first choice."""
        self._append(sequence, self._jump(sequence, None))

    def fill_masks(self, batch: Batch) -> Future[Tensor] | None:
        """Start filling the bitmasks that `collect` will need, on another thread while the model runs."""
        matchers = [
            segment.sequence.matcher for segment in batch.segments if samples(segment.sequence, segment.completes)
        ]
        return self._filling.submit(_fill, matchers, self._model.shape.vocab) if any(matchers) else None

    def collect(self, batch: Batch, logits: Tensor, masks: Future[Tensor] | None) -> None:
        """Score prompt tokens and give each sequence that completed its next tokens or its finish reason."""
        sampled: list[Sequence] = []
        rows: list[int] = []
        ends = itertools.accumulate(batch.logit_counts)
        for segment, end, count in zip(batch.segments, ends, batch.logit_counts, strict=True):
            scored = count - segment.completes
            if scored:
                _score(segment.sequence, logits[end - count : end - count + scored])
            if samples(segment.sequence, segment.completes):
                sampled.append(segment.sequence)
                rows.append(end - 1)
            elif segment.completes:
                segment.sequence.finish_reason = finished_by_length(0)
        if sampled:
            self._sample(sampled, logits[rows], masks)

    def _sample(self, sequences: list[Sequence], logits: Tensor, masks: Future[Tensor] | None) -> None:
        raw = logits.clone() if any(s.request.logprobs for s in sequences) else logits
        sampling.adjust(logits, sequences, self._model.stop_tokens)
        if masks:
            _forbid(logits, masks.result(), [row for row, s in enumerate(sequences) if s.matcher])
        best = logits.amax(-1).tolist()
        tokens = sampling.sample(logits, sequences)
        for row, (sequence, token, peak) in enumerate(zip(sequences, tokens, best, strict=True)):
            if peak != peak:
                sequence.finish_reason = aborted(NOT_A_NUMBER, 500)
            elif peak == -torch.inf:
                sequence.finish_reason = aborted(NO_TOKEN, 400)
            else:
                if wanted := sequence.request.logprobs:
                    sequence.output_logprobs += logprobs.entries(raw[row : row + 1], [token], wanted)
                self._advance(sequence, token)

    def _advance(self, sequence: Sequence, token: int) -> None:
        """Add a sampled token, and after it what the constraint forces."""
        matcher, tokens = sequence.matcher, [token]
        if matcher and not matcher.accept(token):
            sequence.finish_reason = aborted(REFUSED, 400)
            return
        if matcher and not self._ends(sequence, token):
            tokens = self._jump(sequence, token) or tokens
        self._append(sequence, tokens)

    def _jump(self, sequence: Sequence, last: int | None) -> list[int]:
        """Tokens that replace `last` and spell what must follow. With log-probabilities every token is sampled instead."""
        if sequence.matcher is None or sequence.request.logprobs or sequence.max_new_tokens == 0:
            return []
        try:
            return jump_forward(sequence.matcher, self._tokenizer, last)
        except RequestError as error:
            sequence.finish_reason = aborted(str(error), error.status)
            return []

    def _append(self, sequence: Sequence, tokens: list[int]) -> None:
        """Add output tokens up to the first that ends the sequence."""
        for token in tokens:
            if sequence.finish_reason:
                return
            sequence.first_token_at = sequence.first_token_at or time.monotonic()
            sequence.tokens.append(token)
            sequence.output_counts[token] += 1
            self._spell(sequence, token)
        if sequence.matcher and sequence.matcher.finished and not sequence.finish_reason:
            stops = self._model.stop_tokens
            sequence.finish_reason = finished_by_stop(stops[0] if stops else "")

    def _spell(self, sequence: Sequence, token: int) -> None:
        """Add the latest token's text, and the finish reason if it ends the sequence."""
        ends = self._ends(sequence, token)
        if not ends or sequence.request.params.no_stop_trim:
            try:
                sequence.text.push(token)
            except RequestError as error:
                sequence.finish_reason = aborted(str(error), error.status)
                return
        if sequence.text.matched is not None:
            sequence.finish_reason = finished_by_stop(sequence.text.matched)
        elif ends:
            sequence.finish_reason = finished_by_stop(token)
        elif sequence.output_length >= sequence.max_new_tokens:
            sequence.finish_reason = finished_by_length(sequence.output_length)

    def _ends(self, sequence: Sequence, token: int) -> bool:
        """Whether `token` ends the text: the model's own stop tokens unless `ignore_eos`, the request's always."""
        params = sequence.request.params
        return token in params.stop_token_ids or (token in self._model.stop_tokens and not params.ignore_eos)


def samples(sequence: Sequence, completes: bool) -> bool:
    """Whether a token is sampled after a step that `completes` the tokens of `sequence`."""
    return completes and sequence.max_new_tokens > 0


def _score(sequence: Sequence, logits: Tensor) -> None:
    """Append the log-probabilities of the prompt tokens that follow `logits`' rows."""
    wanted = sequence.request.logprobs
    assert wanted is not None
    first = sequence.unscored
    sequence.input_logprobs += logprobs.entries(logits, sequence.tokens[first : first + len(logits)], wanted)


def _fill(matchers: list[Matcher | None], vocabulary: int) -> Tensor:
    import xgrammar

    bitmask = xgrammar.allocate_token_bitmask(len(matchers), vocabulary)
    for row, matcher in enumerate(matchers):
        if matcher:
            matcher.fill(bitmask, row)
    return bitmask


def _forbid(logits: Tensor, bitmask: Tensor, rows: list[int]) -> None:
    """Give the tokens that a constraint does not allow no chance, in place."""
    import xgrammar

    xgrammar.apply_token_bitmask_inplace(logits, bitmask.to(logits.device), indices=rows)
