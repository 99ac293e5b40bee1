"""A generation, token by token: how likely each was, what else might have come, how long it took, what came from the cache."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import traitlets

from sgl_jupyter.lang.events import EventLog, Tokens
from sgl_jupyter.lang.state import ProgramState

from .tool import Tool, source

MAX_TOKENS = 4000
"""More would make the page slow: of longer texts the last ones are shown."""
SHADE = 0.55
"""How strongly an all but impossible token is shaded."""


@dataclass(frozen=True, slots=True)
class InspectedToken:
    """`probability` is the model's own, None for a first token; `milliseconds` since the token before, None for the prompt's.

    `alternatives` are texts and their probabilities, likeliest first.
    """

    text: str
    probability: float | None
    origin: Literal["prompt", "generated"]
    cached: bool = False
    milliseconds: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


def inspected_tokens(state: ProgramState, variable: str) -> list[InspectedToken]:
    """The tokens of the generation of `variable`, after those of its prompt whose log-probabilities were asked for.

    Raises:
        ValueError: the state has no log-probabilities for `variable`. The message says how to ask for them.
    """
    meta = state.get_meta_info(variable) or {}
    if "output_token_logprobs" not in meta:
        raise ValueError(
            f"{variable!r} was generated without log-probabilities: "
            f"use gen({variable!r}, return_logprob=True, top_logprobs_num=5, return_text_in_logprobs=True)"
        )
    latencies = _latencies(state.log, variable)
    found: list[InspectedToken] = []
    for event in state.log.events:
        if not isinstance(event, Tokens) or event.variable != variable:
            continue
        alternatives = meta.get("input_top_logprobs" if event.origin == "prompt" else "output_top_logprobs") or []
        before = sum(token.origin == event.origin for token in found)
        for place, token in enumerate(event.tokens, start=before):
            generated = event.origin == "generated"
            found.append(
                InspectedToken(
                    text=str(token.id) if token.text is None else token.text,
                    probability=None if token.logprob is None else math.exp(token.logprob),
                    origin=event.origin,
                    cached=token.cached,
                    milliseconds=latencies[place] if generated and place < len(latencies) else None,
                    alternatives=_alternatives(alternatives[place]) if place < len(alternatives) else (),
                )
            )
    return found[-MAX_TOKENS:]


def _latencies(log: EventLog, variable: str) -> list[float]:
    """Milliseconds between the arrivals of generated tokens; tokens that arrived together share their time."""
    times: list[float] = []
    last = log.times[0]
    for event, time in zip(log.events, log.times, strict=False):
        if getattr(event, "variable", None) == variable and not isinstance(event, Tokens) and not times:
            last = time
        if isinstance(event, Tokens) and event.variable == variable and event.origin == "generated":
            times += [(time - last) * 1e3 / len(event.tokens)] * len(event.tokens)
            last = time
    return times


def _alternatives(entries: Any) -> tuple[tuple[str, float], ...]:
    pairs = [(str(token) if text is None else text, math.exp(logprob)) for logprob, token, text in entries or []]
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


class TokenInspector(Tool):
    """Shows `state[variable]` token by token. The darker a token, the less likely it was; a dotted line marks cached ones.

    Arrow keys go from token to token. Raises `ValueError` if the generation kept no log-probabilities.
    """

    _esm = source("token_inspector.js")
    tokens = traitlets.List().tag(sync=True)

    def __init__(self, state: ProgramState, variable: str) -> None:
        super().__init__()
        self._tokens = inspected_tokens(state, variable)
        self.tokens = [asdict(token) for token in self._tokens]

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        """The page has all it needs."""

    def static_html(self) -> str:
        spans = "".join(map(_span, self._tokens))
        return f'<pre style="white-space:pre-wrap;line-height:2;background:transparent">{spans}</pre>'

    def static_text(self) -> str:
        return "\n".join(f"{_percent(token.probability):>7}  {token.text!r}" for token in self._tokens)


def _span(token: InspectedToken) -> str:
    doubt = SHADE * (1 - token.probability) if token.probability is not None else 0.0
    others = "".join(f", {text!r} {_percent(probability)}" for text, probability in token.alternatives)
    title = html.escape(f"{_percent(token.probability)}{others}", quote=True)
    edge = ";border-bottom:2px dotted #009e73" if token.cached else ""
    style = f"background-color:rgba(213,94,0,{doubt:.2f}){edge}"
    return f'<span title="{title}" style="{style}">{html.escape(token.text)}</span>'


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.1%}"
