"""`/v1/chat/completions`: messages in, a message out, whole or as a stream of what is new.

Source: https://platform.openai.com/docs/api-reference/chat, and SGLang's extensions of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import RequestError
from ..protocol import Answer, typed
from ..request import LogprobRequest, Output
from ..sampling_params import SamplingParams
from ..vision.pictures import Shown
from .call_forms import CallForm
from .calls import Called, CallReader, Said, call_reader
from .constraints import constrain, enforced_form, read_response_format
from .fields import COMMON, SAMPLING, Call, as_object, check_names, finish, read_call, read_sampling, read_top
from .logprobs import Vocabulary
from .messages import images_in, read_prompt, read_tools
from .reasoning import ReasoningReader, Stage, first_stage
from .settings import Settings

FIELDS = COMMON | {
    "messages", "max_completion_tokens", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice",
    "parallel_tool_calls", "reasoning_effort", "separate_reasoning", "stream_reasoning", "continue_final_message",
    "chat_template_kwargs",
}  # fmt: skip
NAMES = SAMPLING | {"max_completion_tokens": "max_new_tokens"}
WHOLE, CHUNK = "chat.completion", "chat.completion.chunk"
Delta = dict[str, Any]


@dataclass(slots=True)
class AnswerReader:
    """Turns the text of one answer into the deltas of its message."""

    reasoning: ReasoningReader | None
    calls: CallReader | None
    id_length: int
    stream_reasoning: bool
    called: int = 0
    _thoughts: str = ""

    def feed(self, text: str, *, final: bool) -> Iterator[Delta]:
        said = text
        if self.reasoning:
            thoughts, said = self.reasoning.feed(text, final=final)
            self._thoughts += thoughts
            if self._thoughts and (self.stream_reasoning or final or self.reasoning.stage == "says"):
                yield {"reasoning_content": self._thoughts}
                self._thoughts = ""
        for piece in self.calls.feed(said, final=final) if self.calls else [Said(said)]:
            if isinstance(piece, Said):
                if piece.text:
                    yield {"content": piece.text}
            elif isinstance(piece, Called):
                self.called += 1
                yield self._call({"id": self._new_id(), "type": "function"}, {"name": piece.name, "arguments": ""})
            else:
                yield self._call({}, {"arguments": piece.text})

    def _call(self, fields: dict[str, Any], function: dict[str, Any]) -> Delta:
        return {"tool_calls": [{"index": self.called - 1} | fields | {"function": function}]}

    def _new_id(self) -> str:
        prefix = "call_" if self.id_length > 9 else ""
        return prefix + uuid.uuid4().hex[: self.id_length]


@dataclass(slots=True)
class Chat:
    """What a body asks for, and the JSON objects that answer it."""

    call: Call
    answers: list[Answer]
    readers: list[AnswerReader]
    vocabulary: Vocabulary

    def whole(self) -> dict[str, Any]:
        choices = []
        for index, (answer, reader) in enumerate(zip(self.answers, self.readers, strict=True)):
            assert answer.last is not None
            assert answer.last.finish_reason is not None
            message = _message(list(reader.feed(answer.text, final=True)))
            logprobs = self.vocabulary.chat(answer.output_logprobs) if answer.request.logprobs else None
            choice = {"index": index, "message": message, "logprobs": logprobs}
            choices.append(choice | finish(answer.last.finish_reason, called=bool(reader.called)))
        return self.call.frame(WHOLE, choices)

    def chunks(self, index: int, output: Output) -> list[dict[str, Any]]:
        """The events for one output: the role before the first, then what is new, at the end the finish reason."""
        answer, reader = self.answers[index], self.readers[index]
        deltas = list(reader.feed(output.text, final=output.finish_reason is not None))
        if output.output_logprobs and not deltas:
            deltas = [{"content": ""}]  # tokens whose text is held back have their log-probabilities told all the same
        choices: list[dict[str, Any]] = [{"delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
        if output.output_logprobs:
            choices[0]["logprobs"] = self.vocabulary.chat(output.output_logprobs)
        if len(answer.output_ids) == len(output.token_ids):
            role = {"role": "assistant", "content": ""}
            choices.insert(0, {"delta": role, "logprobs": None, "finish_reason": None})
        if output.finish_reason:
            choices.append({"delta": {}, "logprobs": None} | finish(output.finish_reason, called=bool(reader.called)))
        return [self.chunk([{"index": index} | choice]) for choice in choices]

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self.call.frame(CHUNK, choices)


def _message(deltas: list[Delta]) -> dict[str, Any]:
    """The message that `deltas` add up to."""
    texts = {name: "".join(delta.get(name, "") for delta in deltas) for name in ("content", "reasoning_content")}
    calls: list[dict[str, Any]] = []
    for piece in (call for delta in deltas for call in delta.get("tool_calls", [])):
        if "id" in piece:
            calls.append(piece)
        else:
            calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
    thinks_or_calls = bool(calls or texts["reasoning_content"])
    return {
        "role": "assistant",
        "content": None if thinks_or_calls and not texts["content"] else texts["content"],
        "reasoning_content": texts["reasoning_content"] or None,
        "tool_calls": [{name: call[name] for name in ("id", "type", "function")} for call in calls] or None,
        "refusal": None,
    }


def read_chat(body: Any, settings: Settings, shown: Shown | None = None) -> Chat:
    """Read a body, whose images are in `shown`. Raises `RequestError` for what is wrong with it."""
    shown = shown or Shown()
    body = as_object(body)
    check_names(body, FIELDS)
    tools = read_tools(body)
    prompt = read_prompt(body, tools, settings.template, sees=shown.sight is not None)
    separate = typed("separate_reasoning", body.get("separate_reasoning"), bool, True)
    stage: Stage = first_stage(settings.reasoning, prompt) if settings.reasoning else "says"
    form = enforced_form(settings.call_form, tools)
    params = constrain(_sampling(body, settings), tools, form, stage)
    reads_calls = bool(form and tools.schemas)
    if reads_calls:
        params = replace(params, skip_special_tokens=False)  # the marks around calls are special tokens in some models
    call = read_call(body, "chatcmpl", params, settings)
    ids = settings.template.encode(prompt)
    answers = call.blank_answers([shown.prompt(ids, images_in(body))], _logprobs(body))
    stream_reasoning = typed("stream_reasoning", body.get("stream_reasoning"), bool, True)
    readers = [
        AnswerReader(
            reasoning=ReasoningReader(stage) if settings.reasoning and separate else None,
            calls=call_reader(form, set(tools.schemas)) if form and reads_calls else None,
            id_length=form.id_length if isinstance(form, CallForm) else 24,
            stream_reasoning=stream_reasoning,
        )
        for _ in answers
    ]
    return Chat(call, answers, readers, settings.vocabulary)


def _sampling(body: dict[str, Any], settings: Settings) -> SamplingParams:
    extra = read_response_format(body.get("response_format"))
    if twice := next((name for name in extra if body.get(name)), None):
        raise RequestError(f"response_format and {twice} cannot both say what the answer is.", param="response_format")
    params = read_sampling(body, NAMES, settings.defaults | {"max_new_tokens": None}, extra)
    return replace(params, stop=params.stop + settings.template.stop)


def _logprobs(body: dict[str, Any]) -> LogprobRequest | None:
    wanted = typed("logprobs", body.get("logprobs"), bool, False)
    top = read_top("top_logprobs", body.get("top_logprobs"))
    if top is not None and not wanted:
        raise RequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
    return LogprobRequest(top=top or 0) if wanted else None
