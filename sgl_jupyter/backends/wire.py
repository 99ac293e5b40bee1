"""SGLang's native protocol on the wire: the body of a request, the events of a streamed answer, the sentence of an error."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

from sgl_jupyter.backends.base import Prompt, SamplingParams, Video


def generate_body(prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
    """The body of POST /generate, as SGLang's own client writes it.

    What SGLang's client does not know is sent only where it says something, so that servers of any version accept the rest.
    """
    sampling: dict[str, Any] = {
        "skip_special_tokens": params.skip_special_tokens,
        "spaces_between_special_tokens": params.spaces_between_special_tokens,
        "max_new_tokens": params.max_new_tokens,
        "min_new_tokens": params.min_new_tokens,
        "n": params.n,
        "stop": list(params.stop),
        "stop_token_ids": list(params.stop_token_ids),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "frequency_penalty": params.frequency_penalty,
        "presence_penalty": params.presence_penalty,
        "ignore_eos": params.ignore_eos,
        "regex": params.regex,
        "json_schema": params.json_schema,
    }
    if params.stop_regex:
        sampling["stop_regex"] = list(params.stop_regex)
    if params.repetition_penalty != 1.0:
        sampling["repetition_penalty"] = params.repetition_penalty
    if params.logit_bias:
        sampling["logit_bias"] = dict(params.logit_bias)
    if params.seed is not None:
        sampling["sampling_seed"] = params.seed
    if params.ebnf is not None:
        sampling["ebnf"] = params.ebnf
    logprobs = {
        "return_logprob": params.return_logprob,
        "logprob_start_len": params.logprob_start_len,
        "top_logprobs_num": params.top_logprobs_num,
        "return_text_in_logprobs": params.return_text_in_logprobs,
    }
    return {
        "text": prompt,
        "sampling_params": sampling,
        **{name: value for name, value in logprobs.items() if value is not None},
        **({} if params.lora_path is None else {"lora_path": params.lora_path}),
        **images_field(prompt),
    }


def images_field(prompt: Prompt) -> dict[str, Any]:
    """`image_data`, where the prompt shows something: a single one by itself, as SGLang's client sends it, several as a list.

    An image is its file in base64, or its URL; a video is its frames' PNG files one after another, behind "video:".
    """
    data = [_video_data(each) if isinstance(each, Video) else each.base64 or each.url for each in prompt.media]
    return {"image_data": data if len(data) > 1 else data[0]} if data else {}


def _video_data(video: Video) -> str:
    files = b"".join(base64.b64decode(frame.base64 or "") for frame in video.frames)
    return "video:" + base64.b64encode(files).decode()


async def sse_events(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event.

    Lines end at a line feed and nowhere else: JSON may hold U+2028 and other characters that `str.splitlines` splits at.
    """
    buffer = b""
    async for piece in stream:
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def error_sentence(body: Any) -> str:
    """What an error's JSON body says, in any of the forms that servers use."""
    while isinstance(body, dict):
        inner = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
        if inner is None:
            break
        body = inner
    return body if isinstance(body, str) else str(body)
