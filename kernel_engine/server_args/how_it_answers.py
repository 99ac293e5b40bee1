"""Flags about what the server says: on HTTP, in OpenAI's forms, in its log and in its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from .flag import NOT_EMPTY, RISING, Rule, at_least, effective, noted, refused

PORT = Rule(lambda port: 0 <= port < 65536, "be in [0, 65535]")
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, kw_only=True)
class HttpFlags:
    """HTTP"""

    host: str = effective("127.0.0.1", "address to listen on")
    port: int = effective(30000, "port to listen on; 0 takes a free one", rule=PORT)
    api_key: str | None = effective(None, "ask for `Authorization: Bearer KEY`", rule=NOT_EMPTY)
    api_key_file: str | None = effective(
        None, "read the API key from this file, which keeps it out of process lists (not one of SGLang's)"
    )
    ready_file: str | None = effective(
        None, "write url, port and pid to this file as JSON once it is ready (not one of SGLang's)"
    )
    served_model_name: str | None = effective(None, "the model's name in /v1/models; by default its path")
    stream_interval: int = effective(1, "tokens per streamed event", rule=at_least(1))
    stream_output: bool = effective(
        False, "stream what is new in each event, not the whole text so far, which frontends, ours too, expect"
    )
    preferred_sampling_params: str | None = effective(
        None, "JSON object that /get_model_info shows; the client's to apply, not the server's"
    )
    enable_tokenizer_batch_encode: bool = noted(False, "tokenize the prompts of a list together", "they always are.")
    allowed_local_media_path: str | None = effective(
        None, "folder whose images requests may name by path; by default none (not one of SGLang's)"
    )
    allow_private_image_urls: bool = effective(
        False, "fetch images also from loopback and private addresses (not one of SGLang's)"
    )
    disable_fast_image_processor: bool = noted(
        False, "use the slow image processor", "images are always processed by the one that needs no torchvision."
    )
    file_storage_path: str = noted("sglang_storage", "where files of /v1/files are kept", "there is no /v1/files.")
    enable_custom_logit_processor: bool = refused(
        False,
        "run code that a request brings",
        "a request may not bring code; use its `logit_bias`, or a constraint.",
    )


@dataclass(frozen=True, kw_only=True)
class OpenAIFlags:
    """OpenAI's routes"""

    chat_template: str | None = effective(
        None, "file (.jinja, .json) or name of the chat template; by default the model's own"
    )
    tool_call_parser: str | None = effective(
        None,
        "form of the model's tool calls; by default told from its template",
        choices=("qwen25", "qwen", "hermes", "mistral", "llama3", "pythonic"),
        refuses={"deepseekv3": "that form is not read; leave it out, and calls that `tool_choice` asks for are JSON."},
    )
    reasoning_parser: str | None = effective(
        None, "separate what the model thinks from what it says", choices=("deepseek-r1", "qwen3")
    )
    enable_cache_report: bool = effective(False, "tell in `usage` how many prompt tokens came from the cache")
    completion_template: str | None = refused(
        None,
        "how `suffix` is put in a prompt",
        "`suffix` is not supported; write the model's fill-in tokens in the prompt.",
    )


@dataclass(frozen=True, kw_only=True)
class ConstraintFlags:
    """Constraints"""

    grammar_backend: str = effective(
        "xgrammar",
        "xgrammar (llguidance for `regex`, and for schemas that limit strings), llguidance (xgrammar for `structural_tag`), or "
        "none: refuse constraints",
        choices=("xgrammar", "llguidance", "none"),
        refuses={"outlines": "use xgrammar or llguidance."},
    )
    constrained_json_whitespace_pattern: str | None = effective(
        None, "regular expression for the white space in JSON; needs --grammar-backend llguidance"
    )
    disable_outlines_disk_cache: bool = noted(False, "keep no compiled constraints on disk", "none are kept there.")


@dataclass(frozen=True, kw_only=True)
class LogFlags:
    """Log and metrics"""

    log_level: str = effective("info", "how much is logged", choices=LEVELS)
    log_level_http: str | None = effective(
        None, "the same for HTTP requests; by default as --log-level", choices=LEVELS
    )
    log_requests: bool = effective(False, "log each request when it comes and when it is finished")
    log_requests_level: int = effective(
        0,
        "0: parameters and figures, 1: also the beginning of the texts, 2: the whole texts",
        choices=(0, 1, 2),
        needs="log_requests",
    )
    decode_log_interval: int = effective(40, "decoding steps per log line", rule=at_least(1))
    show_time_cost: bool = effective(False, "log how long each part of the start took")
    enable_request_time_stats_logging: bool = effective(
        False, "log how long each request waited, read its prompt and wrote"
    )
    enable_metrics: bool = effective(False, "serve /metrics in Prometheus' format")
    bucket_time_to_first_token: tuple[float, ...] | None = effective(
        None,
        "bounds of the histogram sglang:time_to_first_token_seconds in /metrics",
        rule=RISING,
        needs="enable_metrics",
    )
    bucket_inter_token_latency: tuple[float, ...] | None = effective(
        None,
        "bounds of the histogram sglang:inter_token_latency_seconds in /metrics",
        rule=RISING,
        needs="enable_metrics",
    )
    bucket_e2e_request_latency: tuple[float, ...] | None = effective(
        None,
        "bounds of the histogram sglang:e2e_request_latency_seconds in /metrics",
        rule=RISING,
        needs="enable_metrics",
    )
    collect_tokens_histogram: bool = effective(
        False, "histograms of the requests' prompt and output lengths in /metrics", needs="enable_metrics"
    )
