"""What a `/generate` body stands for, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_engine.errors import RequestError
from kernel_engine.protocol import FIELDS, IGNORED, UNSUPPORTED, GenerateBody, read_generate
from kernel_engine.request import LogprobRequest

from .support import byte_tokenizer, examples

TOKENIZER = byte_tokenizer()
HI = TOKENIZER("hi")["input_ids"]


def read(**body: Any) -> GenerateBody:
    return read_generate(body, TOKENIZER, 1)


def ids(body: GenerateBody) -> list[list[int]]:
    return [request.input_ids for request in body.requests]


def test_one_text():
    body = read(text="hi")
    assert (ids(body), body.batch, body.stream) == ([HI], False, False)


def test_one_list_of_ids():
    body = read(input_ids=[1, 2])
    assert (ids(body), body.batch) == ([[1, 2]], False)


@pytest.mark.parametrize("body", [{"text": ["hi", "hi"]}, {"input_ids": [HI, HI]}])
def test_a_batch(body: dict[str, Any]):
    found = read(**body)
    assert (ids(found), found.batch) == ([HI, HI], True)
    assert found.requests[0].rid != found.requests[1].rid


def test_a_batch_of_one_is_a_batch():
    assert read(text=["hi"]).batch


def test_ids_win_over_text():
    assert ids(read(text="hi", input_ids=[7])) == [[7]]


def test_samples_come_prompt_by_prompt():
    body = read(text=["hi", "a"], sampling_params={"n": 2}, rid=["x", "y"])
    assert [request.rid for request in body.requests] == ["x_0", "x_1", "y_0", "y_1"]
    assert ids(body)[0] == ids(body)[1] == HI
    assert read(text="hi", sampling_params={"n": 2}).batch


def test_one_rid_for_a_batch_is_numbered():
    assert [r.rid for r in read(text=["a", "b"], rid="x").requests] == ["x_0", "x_1"]


def test_one_value_for_all_or_one_each():
    body = read(
        text=["a", "b"], sampling_params=[{"top_k": 3}, {"top_k": 4}], return_logprob=True, logprob_start_len=[0, -1],
        top_logprobs_num=2, token_ids_logprob=[[5], None], priority=[1, 2],
    )  # fmt: skip
    assert [request.params.top_k for request in body.requests] == [3, 4]
    assert [request.logprobs for request in body.requests] == [LogprobRequest(0, 2, (5,)), LogprobRequest(-1, 2, ())]
    assert [request.priority for request in body.requests] == [1, 2]


def test_token_ids_for_all():
    body = read(text=["a", "b"], return_logprob=True, token_ids_logprob=[5, 6])
    assert [r.logprobs.token_ids for r in body.requests if r.logprobs] == [(5, 6), (5, 6)]


def test_without_logprobs_their_fields_are_idle():
    assert read(text="a", logprob_start_len=0, top_logprobs_num=3).requests[0].logprobs is None


def test_the_interval_of_streaming():
    assert [read(text="a", stream=s).requests[0].stream_interval for s in (False, True)] == [None, 1]
    assert read(text="a", stream=True, sampling_params={"stream_interval": 5}).requests[0].stream_interval == 5


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "Either text or input_ids should be provided."),
    ({"text": 5}, "text must be"),
    ({"text": []}, "text must be"),
    ({"text": ["a", 5]}, "text must be"),
    ({"text": "\ud800"}, "text is not valid Unicode"),
    ({"input_ids": "a"}, "input_ids must be"),
    ({"input_ids": [1, "a"]}, "input_ids must be"),
    ({"input_ids": [[1], 2]}, "input_ids must be"),
    ({"input_ids": [True]}, "input_ids must be"),
    ({"input_ids": [1.0]}, "input_ids must be"),
    ({"text": "a", "nonsense": 1}, "unknown field `nonsense`"),
    ({"text": "a", "image_data": "x"}, "image_data is not supported"),
    ({"text": "a", "lora_path": 3}, "lora_path must be a string"),
    ({"text": "a", "sampling_params": 5}, "sampling_params must be an object"),
    ({"text": "a", "sampling_params": [{}]}, "sampling_params is an array, but there is one prompt"),
    (
        {"text": ["a", "b"], "sampling_params": [{}]},
        r"The length of sampling_params \(1\) should be equal to the batch size \(2\)",
    ),
    ({"text": ["a", "b"], "rid": ["x"]}, "The length of rid"),
    ({"text": "a", "rid": 5}, "rid must be a string"),
    ({"text": "a", "stream": 1}, "stream must be a boolean"),
    ({"text": "a", "stream": [True]}, "stream must be a boolean"),
    ({"text": "a", "priority": "high"}, "priority must be an integer"),
    ({"text": "a", "return_logprob": "yes"}, "return_logprob must be a boolean"),
    ({"text": "a", "return_logprob": True, "logprob_start_len": "0"}, "logprob_start_len must be an integer"),
    ({"text": "a", "return_logprob": True, "logprob_start_len": -2}, "logprob_start_len must be at least -1"),
    ({"text": "a", "return_logprob": True, "top_logprobs_num": -1}, "top_logprobs_num must be in"),
    ({"text": "a", "return_logprob": True, "top_logprobs_num": True}, "top_logprobs_num must be an integer"),
    ({"text": "a", "return_logprob": True, "token_ids_logprob": 5}, "token_ids_logprob must be an array"),
    (
        {"text": "a", "return_logprob": True, "token_ids_logprob": ["x"]},
        "token_ids_logprob must be an array of integers",
    ),
    ({"text": "a", "return_text_in_logprobs": 1}, "return_text_in_logprobs must be a boolean"),
]


@pytest.mark.parametrize(("body", "message"), BAD, ids=lambda value: f"{value!r:.60}")
def test_a_bad_body_is_refused_by_the_name_of_its_field(body: dict[str, Any], message: str):
    with pytest.raises(RequestError, match=message) as refusal:
        read(**body)
    assert refusal.value.status == 400


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_a_body_must_be_an_object(body: Any):
    with pytest.raises(RequestError, match="the body must be a JSON object"):
        read_generate(body, TOKENIZER, 1)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_is_not_supported_may_be_sent_empty(name: str):
    assert len(read(text="a", **{name: None}).requests) == 1


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted(FIELDS | IGNORED | UNSUPPORTED))


@examples(400)
@given(body=st.dictionaries(NAMES, ANY, max_size=4), text=st.sampled_from(["a", ["a", "b"]]))
def test_no_body_gives_another_error(body: dict[str, Any], text: Any):
    try:
        read_generate({"text": text} | body, TOKENIZER, 1)
    except RequestError as error:
        message = str(error)
    else:
        message = "it is fine"
    assert message
