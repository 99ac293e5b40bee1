"""From a step's logits to each sequence's next tokens: scoring, constraints, sampling, and the rules by which a text ends.

Tokens are sampled in turns, one token of each sequence at a time. A sequence that got what was drafted for it has its next
logits already and takes part in the next turn, so every rule holds for each token as it would without a draft.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from . import logprobs, sampling
from .batch import Batch
from .errors import RequestError
from .grammar import jump_forward
from .matchers import Matcher
from .model import Model
from .plan import Segment
from .request import Sequence, aborted, finished_by_length, finished_by_stop

NO_TOKEN = "the constraint and the sampling parameters allow no token"
NOT_A_NUMBER = "the model's logits are not a number (NaN)"
REFUSED = "the constraint refused a token that it had asked for; does it spell a special token?"


@dataclass(frozen=True, slots=True)
class Turn:
    """A segment that completes its sequence; the logits after its last token are in row `first`, those after each drafted
    one in the rows behind."""

    segment: Segment
    first: int

    @property
    def row(self) -> int:
        """Where the logits are that choose the sequence's next token."""
        return self.first + len(self.segment.sequence.tokens) - self.segment.known

    @property
    def goes_on(self) -> bool:
        """Whether the sequence has more logits after the tokens that it got: all of them were drafted."""
        segment, sequence = self.segment, self.segment.sequence
        if not segment.draft or sequence.finish_reason:
            return False
        return segment.accepted == len(sequence.tokens) - segment.known


class Collector:
    """Follows every running sequence's constraint and decides when it has finished. Lives on the engine's thread."""

    def __init__(self, model: Model):
        self._model, self._tokenizer = model, model.tokenizer.backend_tokenizer
        self._filling = ThreadPoolExecutor(1, thread_name_prefix="masks")

    def close(self) -> None:
        self._filling.shutdown(wait=False)

    def begin(self, sequence: Sequence) -> None:
        """Give a new sequence the tokens that its constraint forces before the first choice."""
        self._append_forced(sequence, self._jump(sequence, None), None)
        if sequence.drafter:
            sequence.drafter.forced = self._forced(sequence)

    def fill_masks(self, batch: Batch) -> Future[Tensor] | None:
        """Start filling the bitmasks that `collect` will need, on another thread while the model runs."""
        return self._masks([s.sequence.matcher for s in batch.segments if samples(s.sequence, s.completes)])

    def _masks(self, matchers: list[Matcher | None]) -> Future[Tensor] | None:
        return self._filling.submit(_fill, matchers, self._model.shape.vocab) if any(matchers) else None

    @torch.inference_mode()
    def collect(self, batch: Batch, logits: Tensor, masks: Future[Tensor] | None) -> int:
        """Score prompt tokens and give each sequence that completed its next tokens or its finish reason.

        Returns the number of tokens given.
        """
        turns: list[Turn] = []
        ends = itertools.accumulate(batch.logit_counts)
        for segment, end, count in zip(batch.segments, ends, batch.logit_counts, strict=True):
            sequence, completes = segment.sequence, segment.completes
            first = end - 1 - len(segment.draft) if completes else end
            if end - count < first:
                _score(sequence, logits[end - count : first])
            if samples(sequence, completes):
                turns.append(Turn(segment, first))
            elif completes and logits[first].isnan().any():
                _fail_by_nan(sequence)
            elif completes:
                sequence.finish_reason = finished_by_length(0)
        self._take_turns(turns, logits, masks)
        for segment in (turn.segment for turn in turns):
            if drafter := segment.sequence.drafter:
                drafter.verified(len(segment.draft), segment.accepted)
                drafter.forced = self._forced(segment.sequence)
        return sum(len(turn.segment.sequence.tokens) - turn.segment.known for turn in turns)

    def _take_turns(self, turns: list[Turn], logits: Tensor, masks: Future[Tensor] | None) -> None:
        while turns:
            sequences = [turn.segment.sequence for turn in turns]
            # Where every row has its turn, none is needed again, and the logits may be changed in place.
            chosen = logits if len(turns) == len(logits) else logits[[turn.row for turn in turns]]
            self._sample(sequences, chosen, masks)
            turns = [turn for turn in turns if turn.goes_on]
            masks = self._masks([turn.segment.sequence.matcher for turn in turns])

    def _sample(self, sequences: list[Sequence], logits: Tensor, masks: Future[Tensor] | None) -> None:
        raw = logits.clone() if any(s.request.logprobs for s in sequences) else logits
        sampling.adjust(logits, sequences, self._model.stop_tokens)
        if masks:
            _forbid(logits, masks.result(), [row for row, s in enumerate(sequences) if s.matcher])
        best = logits.amax(-1).tolist()
        tokens = sampling.sample(logits, sequences)
        for row, (sequence, token, peak) in enumerate(zip(sequences, tokens, best, strict=True)):
            if peak != peak:
                _fail_by_nan(sequence)
            elif peak == -torch.inf:
                sequence.finish_reason = aborted(NO_TOKEN, 400)
            else:
                if wanted := sequence.request.logprobs:
                    sequence.output_logprobs += logprobs.entries(raw[row : row + 1], [token], wanted)
                self._advance(sequence, token)

    def _advance(self, sequence: Sequence, token: int) -> None:
        """Add a sampled token, and after it what the constraint forces."""
        matcher = sequence.matcher
        if matcher and not matcher.accept(token):
            sequence.finish_reason = aborted(REFUSED, 400)
            return
        if matcher and not self._ends(sequence, token) and (tokens := self._jump(sequence, token)):
            self._append_forced(sequence, tokens, token)
        else:
            self._append(sequence, [token])

    def _jump(self, sequence: Sequence, last: int | None) -> list[int]:
        """Tokens that replace `last` and spell what must follow. With log-probabilities every token is sampled instead."""
        if sequence.matcher is None or sequence.request.logprobs or sequence.max_new_tokens == 0:
            return []
        try:
            return jump_forward(sequence.matcher, self._tokenizer, last)
        except RequestError as error:
            sequence.finish_reason = aborted(str(error), error.status)
            return []

    def _forced(self, sequence: Sequence) -> list[int]:
        """The likely tokens of what must come next."""
        if sequence.matcher is None or sequence.finish_reason:
            return []
        return self._tokenizer.encode(sequence.matcher.forced(), add_special_tokens=False).ids

    def _append_forced(self, sequence: Sequence, tokens: list[int], last: int | None) -> None:
        """Add `tokens`, which spell what the token `last` does and then what the constraint forces, and note where that is."""
        chosen = "" if last is None else self._tokenizer.decode([last], skip_special_tokens=False)
        begin = len(sequence.text.text) + len(chosen)
        self._append(sequence, tokens)
        if (end := len(sequence.text.text)) > begin:
            sequence.forced.append((begin, end))

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


def _fail_by_nan(sequence: Sequence) -> None:
    sequence.finish_reason = aborted(NOT_A_NUMBER, 500)
    sequence.poisoned = True


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
