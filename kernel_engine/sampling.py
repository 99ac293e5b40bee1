"""From logits to the next tokens.

Greedy rows take the arg max. Others draw by inverse transform from the softmax of `logits / temperature`, cut to `top_k`,
`top_p` and `min_p` (each against the uncut distribution, as SGLang does). Randomness is a counter, not a state: the number
drawn for a token depends on the request's seed and the token's position only, so neither batching nor retraction changes a
seeded output. The vocabulary is never sorted whole unless a nucleus is wider than `NUCLEUS`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .request import Sequence

NUCLEUS = 1024
"""Tokens that are looked at for `top_p` before the whole vocabulary is."""


def adjust(logits: Tensor, sequences: list[Sequence], stop_tokens: list[int]) -> None:
    """Apply penalties, biases and `min_new_tokens` to `logits` [sequences, vocabulary], in place.

    `stop_tokens` are the ids that end a sequence, which `min_new_tokens` forbids until then.
    """
    for row, sequence in zip(logits, sequences, strict=True):
        params = sequence.request.params
        if params.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(set(sequence.tokens)), device=row.device)
            values = row[seen]
            row[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        if (params.frequency_penalty or params.presence_penalty) and sequence.output_counts:
            ids = torch.tensor(list(sequence.output_counts), device=row.device)
            counts = torch.tensor(list(sequence.output_counts.values()), device=row.device)
            row[ids] -= counts * params.frequency_penalty + params.presence_penalty
        if params.logit_bias:
            ids = torch.tensor(list(params.logit_bias), device=row.device)
            row[ids] += torch.tensor(list(params.logit_bias.values()), device=row.device)
        if sequence.output_length < params.min_new_tokens:
            row[[token for token in (*stop_tokens, *params.stop_token_ids) if token < len(row)]] = -torch.inf


def sample(logits: Tensor, sequences: list[Sequence]) -> list[int]:
    """The next token of each sequence, from adjusted and masked `logits` [sequences, vocabulary]."""
    tokens = logits.argmax(-1)
    plain, cut = [], []
    for row, sequence in enumerate(sequences):
        if not sequence.request.params.greedy:
            (cut if _is_cut(sequence) else plain).append(row)
    # Each has its own order of tokens, which must not depend on who else is in the batch.
    for rows, draw in ((plain, _draw_plain), (cut, _draw_cut)):
        if rows:
            chosen = [sequences[row] for row in rows]
            temperatures = torch.tensor([s.request.params.temperature for s in chosen], device=logits.device)
            temperatures.clamp_(max=torch.finfo(temperatures.dtype).max)
            tokens[rows] = draw((logits[rows] / temperatures[:, None]).softmax(-1), chosen)
    return tokens.tolist()


def _is_cut(sequence: Sequence) -> bool:
    params = sequence.request.params
    return params.top_p < 1 or params.top_k != -1 or params.min_p > 0


def _draw_plain(probabilities: Tensor, sequences: list[Sequence]) -> Tensor:
    return _invert(probabilities, _points(sequences, probabilities.device))


def _draw_cut(probabilities: Tensor, sequences: list[Sequence]) -> Tensor:
    values, ids = probabilities.topk(min(NUCLEUS, probabilities.shape[1]))
    tokens = _draw_sorted(values, ids, sequences)
    params = [s.request.params for s in sequences]
    seen = values.sum(-1).tolist()
    wide = [i for i, p in enumerate(params) if seen[i] < p.top_p and not 0 < p.top_k <= NUCLEUS]
    if wide and probabilities.shape[1] > NUCLEUS:
        values, ids = probabilities[wide].sort(descending=True)
        tokens[wide] = _draw_sorted(values, ids, [sequences[i] for i in wide])
    return tokens


def _draw_sorted(values: Tensor, ids: Tensor, sequences: list[Sequence]) -> Tensor:
    """One of `ids` a row, of which the descending `values` are the probabilities."""
    device = values.device
    params = [s.request.params for s in sequences]
    top_k = torch.tensor([p.top_k if p.top_k > 0 else values.shape[1] for p in params], device=device)[:, None]
    top_p = torch.tensor([p.top_p for p in params], device=device)[:, None]
    min_p = torch.tensor([p.min_p for p in params], device=device)[:, None]
    before = values.cumsum(-1) - values
    rank = torch.arange(values.shape[1], device=device)
    kept = (rank < top_k) & (before <= top_p) & (values >= min_p * values[:, :1])
    return ids.gather(1, _invert(values * kept, _points(sequences, device))[:, None])[:, 0]


def _points(sequences: list[Sequence], device: torch.device) -> Tensor:
    """A number in [0, 1) for each sequence, which its seed and its next position decide."""
    return torch.tensor([uniform(s.seed, len(s.tokens)) for s in sequences], dtype=torch.float64, device=device)


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """For each row, the first index at which the running sum of `weights` exceeds `points` (in [0, 1)) times their sum."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(sums, (points * sums[:, -1])[:, None], right=True)[:, 0].clamp_(max=weights.shape[1] - 1)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on `seed` and `position` alone (SplitMix64, Steele et al. 2014)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xD1B54A32D192ED03) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)
