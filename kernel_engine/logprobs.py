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
    logprobs = log_softmax(logits)
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


def log_softmax(logits: Tensor) -> Tensor:
    """Like PyTorch's, in fp32, but exact for a token that is all but certain: it gets its small negative number where the usual
    way rounds to 0, which SGLang's client takes for no log-probability at all."""
    peak, index = logits.float().max(-1, keepdim=True)
    below = logits - peak
    others = below.exp().scatter_(-1, index, 0).sum(-1, keepdim=True)
    return below.sub_(others.log1p_())
