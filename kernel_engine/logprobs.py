"""Log-probabilities of prompt and output tokens.

They are always those of the model itself: the log-softmax of its logits before penalties, temperature, cuts and constraints,
so that prefill and decode agree at every temperature. (SGLang gives the sampling distribution's for sampled outputs.)
"""

from __future__ import annotations

from torch import Tensor

from .request import LogprobEntry, LogprobRequest


def entries(logits: Tensor, tokens: list[int], wanted: LogprobRequest) -> list[LogprobEntry]:
    """One entry a row of `logits` [rows, vocabulary], for the token that follows it."""
    if not tokens:
        return []
    logprobs = logits.float().log_softmax(-1)
    own = logprobs[list(range(len(tokens))), tokens].tolist()
    top: list[list[tuple[float, int]] | None] = [None] * len(tokens)
    if wanted.top:
        values, ids = logprobs.topk(min(wanted.top, logprobs.shape[1]))
        top = [list(zip(v, i, strict=True)) for v, i in zip(values.tolist(), ids.tolist(), strict=True)]
    chosen: list[list[tuple[float, int]] | None] = [None] * len(tokens)
    if wanted.token_ids:
        values = logprobs[:, list(wanted.token_ids)].tolist()
        chosen = [list(zip(v, wanted.token_ids, strict=True)) for v in values]
    return [LogprobEntry(*entry) for entry in zip(own, tokens, top, chosen, strict=True)]
