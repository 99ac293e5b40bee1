"""`/v1/completions`: prompts in, text out, whole or as a stream (https://platform.openai.com/docs/api-reference/completions)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..errors import RequestError
from ..protocol import Answer, typed
from ..request import LogprobRequest, Output
from ..vision.pictures import Shown
from .fields import COMMON, SAMPLING, Call, as_object, check_names, finish, read_call, read_sampling, read_top
from .logprobs import Vocabulary
from .settings import Settings

FIELDS = COMMON | {"prompt", "echo", "logprobs", "best_of", "suffix"}
MAX_TOKENS = 16
"""OpenAI's default of `max_tokens`."""
KIND = "text_completion"


@dataclass(slots=True)
class Completions:
    """What a body asks for, and the JSON objects that answer it."""

    call: Call
    answers: list[Answer]
    echo: list[str]
    """The text that stands before each answer's: its prompt if the body asks for it, else nothing."""
    vocabulary: Vocabulary
    _sent: Counter[int] = field(default_factory=Counter)
    """Characters of each choice that have been streamed."""

    def whole(self) -> dict[str, Any]:
        choices = []
        for index, answer in enumerate(self.answers):
            assert answer.last is not None
            assert answer.last.finish_reason is not None
            logprobs = self._logprobs(answer, answer.input_logprobs + answer.output_logprobs, 0)
            text = self.echo[index] + answer.text
            choices.append({"index": index, "text": text, "logprobs": logprobs} | finish(answer.last.finish_reason))
        return self.call.frame(KIND, choices)

    def chunks(self, index: int, output: Output) -> list[dict[str, Any]]:
        """The events for one output."""
        answer = self.answers[index]
        text, self.echo[index] = self.echo[index] + output.text, ""
        logprobs = self._logprobs(answer, output.input_logprobs + output.output_logprobs, self._sent[index])
        self._sent[index] += len(text)
        reason = finish(output.finish_reason) if output.finish_reason else {"finish_reason": None}
        if not text and logprobs is None and not output.finish_reason:
            return []
        return [self.chunk([{"index": index, "text": text, "logprobs": logprobs} | reason])]

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self.call.frame(KIND, choices)

    def _logprobs(self, answer: Answer, entries: list[Any], offset: int) -> dict[str, Any] | None:
        if answer.request.logprobs is None:
            return None
        return self.vocabulary.completion(entries, offset, top=answer.request.logprobs.top > 0)


def read_completions(body: Any, settings: Settings, shown: Shown | None = None) -> Completions:
    """Read a body, which shows no images: `shown` are none. Raises `RequestError` for what is wrong with it."""
    shown = shown or Shown()
    body = as_object(body)
    check_names(body, FIELDS)
    params = read_sampling(body, SAMPLING, settings.defaults | {"max_new_tokens": MAX_TOKENS})
    if body.get("suffix"):
        raise RequestError("suffix is not supported: write the model's fill-in tokens in the prompt.", param="suffix")
    if body.get("best_of") not in (None, params.n):
        raise RequestError("best_of is not supported: ask for n samples and choose among them.", param="best_of")
    call = read_call(body, "cmpl", params, settings)
    prompts = _prompts(body.get("prompt"), settings.tokenizer)
    echo = typed("echo", body.get("echo"), bool, False)
    top = read_top("logprobs", body.get("logprobs"))
    wanted = None if top is None else LogprobRequest(start=0 if echo else -1, top=top)
    answers = call.blank_answers([shown.prompt(ids) for _, ids in prompts], wanted)
    echoed = [
        _text(prompt, ids, settings.tokenizer) if echo else "" for prompt, ids in prompts for _ in range(params.n)
    ]
    return Completions(call, answers, echoed, settings.vocabulary)


def _prompts(prompt: Any, tokenizer: PreTrainedTokenizerFast) -> list[tuple[str | None, list[int]]]:
    """Text (None where ids were given) and token ids of every prompt."""
    several = isinstance(prompt, list) and not (prompt and all(type(each) is int for each in prompt))
    found = []
    for each in prompt if several else [prompt]:
        if isinstance(each, str) and each:
            found.append((each, tokenizer(each)["input_ids"]))
        elif isinstance(each, list) and each and all(type(token) is int for token in each):
            found.append((None, each))
        else:
            raise RequestError(
                "prompt must be a non-empty string, an array of token ids, or an array of such.", param="prompt"
            )
    if not found:
        raise RequestError("prompt must not be empty.", param="prompt")
    return found


def _text(prompt: str | None, ids: list[int], tokenizer: PreTrainedTokenizerFast) -> str:
    if prompt is None:
        return str(tokenizer.decode(ids))
    return prompt
