"""RuntimeEndpoint with SGLang's wire forms, that of 0.4.6 and the current one, with an API key, and over TLS.

The servers here are scripts: they take and give what SGLang's do, as its sources and documentation say, and refuse what those
refuse.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import sgl_jupyter as sgl
from sgl_jupyter.lang.program import begin_state

from .fake_server import running, sse, token_id, tokens_of

SAMPLING_KEYS = {
    "max_new_tokens", "min_new_tokens", "stop", "stop_token_ids", "temperature", "top_p", "top_k", "min_p",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "n", "json_schema", "regex", "ebnf", "structural_tag",
    "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim", "stream_interval", "custom_params",
}  # fmt: skip
"""What 0.4.6 knows; the current version knows more, and refuses the rest likewise."""
NEWER_KEYS = {"stop_regex", "logit_bias", "sampling_seed"}
TEXTS = ["Hello", "Hello, wor", "Hello, world!"]
KEY = "secret"


class FakeSGLang:
    """One of the two forms of SGLang's protocol."""

    def __init__(self, is_current: bool) -> None:
        self.is_current = is_current

    def routes(self) -> list[Route]:
        prefix = "/" if self.is_current else "/get_"  # as it will be when the old names, now deprecated, are gone
        return [
            Route(prefix + "model_info", self.model_info),
            Route(prefix + "server_info", self.server_info),
            Route("/flush_cache", lambda request: PlainTextResponse("Cache flushed.\n"), methods=["GET", "POST"]),
            Route("/generate", self.generate, methods=["POST"]),
        ]

    def model_info(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        info = {
            "model_path": "Qwen/Qwen2.5-7B-Instruct",
            "tokenizer_path": "Qwen/Qwen2.5-7B-Instruct",
            "is_generation": True,
        }
        return JSONResponse(info | ({"served_model_name": "m", "weight_version": "default"} if self.is_current else {}))

    def server_info(self, request: Request) -> Response:
        return JSONResponse({"status": "ready", "version": "0.5.23" if self.is_current else "0.4.6.post4"})

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        params = body["sampling_params"]
        known = SAMPLING_KEYS | (NEWER_KEYS if self.is_current else set())
        if unknown := params.keys() - known:
            if self.is_current:
                return JSONResponse({"error": f"unknown field `{min(unknown)}`, expected one of `n`"}, 400)
            return PlainTextResponse("Internal Server Error", 500)
        if params.get("top_p", 1.0) > 1:
            return JSONResponse({"error": {"message": f"top_p must be in (0, 1], got {params['top_p']}."}}, 400)
        if body.get("stream"):
            return sse(*(self.answer(text, done=text == TEXTS[-1]) for text in TEXTS))
        if params["max_new_tokens"]:
            return JSONResponse([self.answer(TEXTS[-1], done=True) for _ in range(params["n"])])
        if isinstance(body["text"], list):
            return JSONResponse([self.scored(text, body) for text in body["text"]])
        return JSONResponse(self.scored(body["text"], {}))

    def answer(self, text: str, done: bool) -> dict[str, Any]:
        reason = {"type": "stop", "matched": 151645} if done else None
        meta_info = {"id": "r", "finish_reason": reason, "prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1}
        if not self.is_current:
            return {"text": text, "meta_info": meta_info}
        return {"text": text, "output_ids": [1, 2], "meta_info": meta_info | {"weight_version": "default"}}

    def scored(self, text: str, body: dict[str, Any]) -> dict[str, Any]:
        tokens = tokens_of(text)
        start = body.get("logprob_start_len", len(tokens) - (0 if self.is_current else 1))
        logprobs: list[Any] = [[-len(token) / 10, token_id(token), token] for token in tokens[start:]]
        for first in logprobs[:1]:
            first[0] = None
        reason = {"type": "length", "length": 0}
        meta_info = {"finish_reason": reason, "prompt_tokens": len(tokens), "input_token_logprobs": logprobs}
        return {"text": "" if self.is_current else " sampled", "meta_info": meta_info}


@contextmanager
def sglang(is_current: bool, **options: Any) -> Iterator[str]:
    with running(FakeSGLang(is_current).routes(), **options) as url:
        yield url


@pytest.fixture(scope="module", params=[False, True], ids=["0.4.6", "current"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with sglang(request.param) as url:
        yield url


@pytest.fixture
def endpoint(url: str) -> sgl.RuntimeEndpoint:
    return sgl.RuntimeEndpoint(url, api_key=KEY)


def test_a_program_runs(endpoint: sgl.RuntimeEndpoint) -> None:
    state = begin_state(endpoint)
    state += sgl.user("Q") + sgl.assistant(sgl.gen("x", max_tokens=8, stop="\n", regex="H.*", min_tokens=1))
    assert state["x"] == "Hello, world!"
    assert state.text().startswith("<|im_start|>system\n")  # the template is found by the model's path
    assert state.get_meta_info("x")["cached_tokens"] == 1  # type: ignore[index]


def test_samples(endpoint: sgl.RuntimeEndpoint) -> None:
    state = begin_state(endpoint)
    state += sgl.gen("x", n=2)
    assert state["x"] == ["Hello, world!"] * 2


def test_choices(endpoint: sgl.RuntimeEndpoint) -> None:
    state = begin_state(endpoint)
    state += "I need a" + sgl.select("x", [" calculator", " pen"])
    assert state["x"] == " pen"
    scores = state.get_meta_info("x")["normalized_prompt_logprobs"]  # type: ignore[index]
    assert scores == pytest.approx([-1.1, -0.4])


def test_the_cache_and_the_server(endpoint: sgl.RuntimeEndpoint) -> None:
    sgl.flush_cache(endpoint)
    assert sgl.get_server_info(endpoint)["status"] == "ready"  # type: ignore[index]


def test_a_refusal(endpoint: sgl.RuntimeEndpoint) -> None:
    state = begin_state(endpoint)
    state += sgl.gen("x", top_p=2.0)
    with pytest.raises(sgl.BackendError, match=r"top_p must be in \(0, 1\], got 2\.0\. \(HTTP 400"):
        state.sync()


def test_what_the_version_does_not_know_is_refused_and_not_dropped(endpoint: sgl.RuntimeEndpoint) -> None:
    state = begin_state(endpoint)
    state += sgl.gen("x", seed=3)
    if endpoint.get_server_info()["version"].startswith("0.4"):
        with pytest.raises(sgl.BackendError, match="HTTP 500"):
            state.sync()
    else:
        assert state["x"] == "Hello, world!"


def test_a_wrong_key_is_told(url: str) -> None:
    for key in (None, "wrong"):
        with pytest.raises(sgl.BackendError, match="Unauthorized; give the server's key as api_key") as caught:
            sgl.RuntimeEndpoint(url, api_key=key)
        assert caught.value.status == 401


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for this machine that nobody signed but itself."""
    x509 = pytest.importorskip(
        "cryptography.x509", reason="the package cryptography is not installed, so TLS is not tested"
    )
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder: Path = tmp_path_factory.mktemp("tls")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return {"ssl_keyfile": str(folder / "key.pem"), "ssl_certfile": str(folder / "cert.pem")}


def test_verify_names_the_certificates_to_trust(certificate: dict[str, str]) -> None:
    with sglang(is_current=True, **certificate) as url:
        assert url.startswith("https://")
        state = begin_state(sgl.RuntimeEndpoint(url, api_key=KEY, verify=certificate["ssl_certfile"]))
        state += sgl.gen("x")
        assert state["x"] == "Hello, world!"


def test_a_server_that_nobody_vouches_for_is_not_trusted(certificate: dict[str, str]) -> None:
    with (
        sglang(is_current=True, **certificate) as url,
        pytest.raises(ConnectionError, match=r"is not trusted.*verify="),
    ):
        sgl.RuntimeEndpoint(url, api_key=KEY)
