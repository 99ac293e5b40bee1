"""The command line: every flag of SGLang's is there, with its default, and does what the table says of it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from kernel_engine.errors import LoadError
from kernel_engine.launch_server import _show_only_gpu
from kernel_engine.openai.call_forms import FORMS
from kernel_engine.quantize import SCHEMES
from kernel_engine.server_args import ServerArgs, groups, of_status, parse_args
from kernel_engine.server_args.flag import flag_of, spelling
from kernel_engine.server_args.how_it_runs import WARMUPS
from kernel_engine.server_args.table import page
from kernel_engine.warmup import WARMUPS as RUN

ROOT = Path(__file__).parents[2]
FLAGS = {each.name: each for each in fields(ServerArgs)}
LOGGED = """ServerArgs(
    model_path='', tokenizer_path=None, tokenizer_mode='auto', skip_tokenizer_init=False, load_format='auto',
    trust_remote_code=False, dtype='auto', kv_cache_dtype='auto', quantization=None, quantization_param_path=None,
    context_length=None, device=None, served_model_name=None, chat_template=None, completion_template=None,
    is_embedding=False, enable_multimodal=None, revision=None, host='127.0.0.1', port=30000, mem_fraction_static=None,
    max_running_requests=None, max_total_tokens=None, chunked_prefill_size=None, max_prefill_tokens=16384,
    schedule_policy='fcfs', schedule_conservativeness=1.0, cpu_offload_gb=0, page_size=1, tp_size=1, pp_size=1,
    max_micro_batch_size=None, stream_interval=1, stream_output=False, random_seed=None,
    constrained_json_whitespace_pattern=None, watchdog_timeout=300, dist_timeout=None, download_dir=None, base_gpu_id=0,
    gpu_id_step=1, log_level='info', log_level_http=None, log_requests=False, log_requests_level=0, show_time_cost=False,
    enable_metrics=False, bucket_time_to_first_token=None, bucket_e2e_request_latency=None,
    bucket_inter_token_latency=None, collect_tokens_histogram=False, decode_log_interval=40,
    enable_request_time_stats_logging=False, api_key=None, file_storage_path='sglang_storage',
    enable_cache_report=False, reasoning_parser=None, dp_size=1, load_balance_method='round_robin', ep_size=1,
    dist_init_addr=None, nnodes=1, node_rank=0, json_model_override_args='{}', preferred_sampling_params=None,
    lora_paths=None, max_loras_per_batch=8, lora_backend='triton', attention_backend=None, sampling_backend=None,
    grammar_backend='xgrammar', speculative_algorithm=None, speculative_draft_model_path=None,
    speculative_num_steps=None, speculative_eagle_topk=None, speculative_num_draft_tokens=None,
    speculative_accept_threshold_single=1.0, speculative_accept_threshold_acc=1.0, speculative_token_map=None,
    enable_double_sparsity=False, ds_channel_config_path=None, ds_heavy_channel_num=32, ds_heavy_token_num=256,
    ds_heavy_channel_type='qk', ds_sparse_decode_threshold=4096, disable_radix_cache=False, disable_cuda_graph=False,
    disable_cuda_graph_padding=False, enable_nccl_nvls=False, enable_tokenizer_batch_encode=False,
    disable_outlines_disk_cache=False, disable_custom_all_reduce=False, disable_overlap_schedule=False,
    enable_mixed_chunk=False, enable_dp_attention=False, enable_dp_lm_head=False, enable_ep_moe=False,
    enable_deepep_moe=False, deepep_mode='auto', enable_torch_compile=False, torch_compile_max_bs=32,
    cuda_graph_max_bs=None, cuda_graph_bs=None, torchao_config='', enable_nan_detection=False, enable_p2p_check=False,
    triton_attention_reduce_in_fp32=False, triton_attention_num_kv_splits=8, num_continuous_decode_steps=1,
    delete_ckpt_after_loading=False, enable_memory_saver=False, allow_auto_truncate=False,
    enable_custom_logit_processor=False, tool_call_parser=None, enable_hierarchical_cache=False, hicache_ratio=2.0,
    hicache_size=0, hicache_write_policy='write_through_selective', flashinfer_mla_disable_ragged=False, warmups=None,
    moe_dense_tp_size=None, n_share_experts_fusion=0, disable_chunked_prefix_cache=False,
    disable_fast_image_processor=False, mm_attention_backend=None, debug_tensor_dump_output_folder=None,
    debug_tensor_dump_input_file=None, debug_tensor_dump_inject=False, disaggregation_mode='null',
    disaggregation_bootstrap_port=8998, disaggregation_transfer_backend='mooncake', disaggregation_ib_device=None,
    pdlb_url=None)"""
"""SGLang 0.4.6's log line, with defaults for values; its tokenizer_path, device and others are decided later there."""
SGLANGS: dict[str | None, Any] = {
    node.arg: ast.literal_eval(node.value) for node in ast.walk(ast.parse(LOGGED)) if isinstance(node, ast.keyword)
}
OWN = {"api_key_file", "ready_file", "allowed_local_media_path", "allow_private_image_urls"}
OTHER_VALUES = {
    "tokenizer_mode": "slow", "json_model_override_args": '{"a": 1}', "preferred_sampling_params": '{"top_p": 0.5}',
    "warmups": "batch,regex", "mem_fraction_static": "0.5", "grammar_backend": "llguidance",
}  # fmt: skip
"""Where a type alone does not give a value that is allowed."""


def other_value(name: str) -> list[str]:
    """Words after the flag that give it a value which is not its default; none for a switch."""
    each, kind = FLAGS[name], str(FLAGS[name].type)
    choices = [str(choice) for choice in flag_of(each).choices if choice != each.default]
    if kind.startswith("bool"):
        return []
    if name in OTHER_VALUES or choices:
        return [OTHER_VALUES.get(name) or choices[0]]
    if kind.startswith("tuple"):
        return ["20", "30"]
    return ["20" if kind.startswith(("int", "float")) else "another"]


def command_line(name: str) -> list[str]:
    given = ["--model-path", "a-model"]
    if name == "constrained_json_whitespace_pattern":
        given += ["--grammar-backend", "llguidance"]
    return [*given, spelling(name), *other_value(name)]


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parse_args(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_every_argument_of_sglangs_is_there_with_its_default():
    assert len(SGLANGS) == 133
    assert FLAGS.keys() == SGLANGS.keys() | OWN
    args = parse_args(["--model-path", ""])
    different = {name for name, default in SGLANGS.items() if getattr(args, name) != default}
    assert different == {name for name, each in FLAGS.items() if flag_of(each).sglangs}
    assert all(flag_of(FLAGS[name]).sglangs == SGLANGS[name] for name in different)
    assert list(args.without_effect()) == []


@pytest.mark.parametrize("name", FLAGS)
def test_each_has_its_effect_or_is_noted_or_refused(name: str, capsys: pytest.CaptureFixture[str]):
    flag = flag_of(FLAGS[name])
    if flag.status == "refused":
        assert f"{spelling(name)} is not supported: {flag.why}" in complaint(command_line(name), capsys)
        return
    args = parse_args(command_line(name))
    assert getattr(args, name) != FLAGS[name].default
    reason = f"here: {flag.why}" if flag.status == "noted" else f"without {spelling(flag.needs)}." if flag.needs else ""
    assert list(args.without_effect()) == ([f"{spelling(name)} changes nothing {reason}"] if reason else [])
    assert (name in args.public()) is not name.startswith("api_key")


def test_a_flag_that_has_what_it_needs_is_not_named():
    args = parse_args(["--model-path", "a-model", "--log-requests", "--log-requests-level", "2"])
    assert list(args.without_effect()) == []


def test_what_has_its_effect_is_read_somewhere_and_nothing_else_is():
    read = set()
    for path in (ROOT / "kernel_engine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                read |= (
                    {node.attr}
                    if owner in ("args", "_args") or (owner == "self" and "server_args" in path.parts)
                    else set()
                )
    assert read & FLAGS.keys() == {each.name for each in of_status("effective")}


def test_names_to_choose_from_are_those_that_exist():
    known = {"tool_call_parser": FORMS, "quantization": SCHEMES, "torchao_config": SCHEMES}
    for name, names in known.items():
        assert set(flag_of(FLAGS[name]).choices) == set(names), name
    assert set(WARMUPS) == set(RUN)


def test_whatever_has_no_effect_says_why_in_a_sentence():
    for each in (*of_status("noted"), *of_status("refused")):
        why = flag_of(each).why
        assert re.fullmatch(r"\S.{10,}[^.]\.", why), each.name


@pytest.mark.parametrize(
    ("spelled", "name", "words"),
    [
        ("--model", "model_path", ["another"]),
        ("--tensor-parallel-size", "tp_size", ["1"]),
        ("--tp", "tp_size", ["1"]),
        ("--pipeline-parallel-size", "pp_size", ["1"]),
        ("--data-parallel-size", "dp_size", ["1"]),
        ("--expert-parallel-size", "ep_size", ["1"]),
        ("--nccl-init-addr", "dist_init_addr", ["host:1"]),
    ],
)
def test_other_spellings(spelled: str, name: str, words: list[str]):
    args = parse_args(["--model-path", "a-model", spelled, *words])
    assert str(getattr(args, name)) == words[0]


WRONG = {
    "--tp-siz 1": "unrecognized arguments: --tp-siz 1; did you mean --tp-size?",
    "--mem_fraction_static 0.8": "did you mean --mem-fraction-static?",
    "--disable-radix": "did you mean --disable-radix-cache?",
    "--max-total-tokens 15": "--max-total-tokens must be at least 16, got 15.",
    "--watchdog-timeout 0": "--watchdog-timeout must be more than 0, got 0.0.",
    "--cuda-graph-bs 1 0": "--cuda-graph-bs must be at least 1 each, got (1, 0).",
    "--tool-call-parser x": "--tool-call-parser must be one of qwen25, qwen, hermes, mistral, llama3, pythonic, got 'x'.",
    "--quantization awq": "--quantization awq is not supported: weights are rounded at load, to int8 or int4",
    "--stream-interval 0": "--stream-interval must be at least 1, got 0.",
    "--chunked-prefill-size 0": "--chunked-prefill-size must be -1 or at least 1, got 0.",
    "--mem-fraction-static 1.1": "--mem-fraction-static must be in (0, 1], got 1.1.",
    "--dtype int8": "--dtype must be one of auto, half, float16, bfloat16, float, float32, got 'int8'.",
    "--log-requests-level 3": "--log-requests-level must be one of 0, 1, 2, got 3.",
    "--bucket-e2e-request-latency 2 1": "--bucket-e2e-request-latency must rise, got (2.0, 1.0).",
    "--warmups regex,nothing": "--warmups must name some of prefill, batch, regex, json_schema, got 'regex,nothing'.",
    "--load-format npcache": "--load-format npcache is not supported: save the model as safetensors",
    "--grammar-backend outlines": "--grammar-backend outlines is not supported: use xgrammar or llguidance.",
    "--speculative-algorithm EAGLE": "--speculative-algorithm EAGLE is not supported: it needs a draft model; use NGRAM",
    "--json-model-override-args {": "--json-model-override-args is not JSON: ",
    "--json-model-override-args 3": "--json-model-override-args must be a JSON object.",
    "--preferred-sampling-params []": "--preferred-sampling-params must be a JSON object.",
    "--constrained-json-whitespace-pattern x": "needs --grammar-backend llguidance.",
    "--api-key=": "--api-key must not be empty",
    "--api-key a --api-key-file b": "--api-key and --api-key-file cannot both be had",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_value_is_refused_with_a_sentence(words: str, capsys: pytest.CaptureFixture[str]):
    assert WRONG[words] in complaint(["--model-path", "a-model", *words.split(" ")], capsys)


def test_what_a_program_sets_is_checked_as_a_command_line_is():
    with pytest.raises(LoadError, match="--tp-size is not supported"):
        ServerArgs(model_path="a-model", tp_size=2)


def test_secrets_stay_inside():
    public = ServerArgs(model_path="a-model", api_key="a-secret").public()
    assert not any("secret" in f"{name} {value}" for name, value in public.items())
    assert (public["tokenizer_path"], public["served_model_name"]) == ("a-model", "a-model")


def test_help_names_every_flag_and_its_group(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        parse_args(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {spelling(name)} " in text or f"\n  {spelling(name)}\n" in text for name in FLAGS)
    assert all(f"\n{title}:\n" in text for title, _ in groups())


def test_the_page_is_what_the_table_says():
    assert (ROOT / "docs" / "server-arguments.md").read_text() == page(), (
        "run: python -m kernel_engine.server_args.table > docs/server-arguments.md"
    )


def test_a_command_line_is_read_without_the_engine():
    code = (
        "import sys, kernel_engine.server_args as s; s.parse_args(['--model-path', 'x']); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "False\n"


@pytest.mark.parametrize(
    ("visible", "index", "wanted"),
    [(None, 0, None), (None, 2, "2"), ("3,5", 0, "3,5"), ("3,5", 1, "5"), ("GPU-a,GPU-b", 1, "GPU-b")],
)
def test_one_gpu_of_those_that_are_visible(
    visible: str | None, index: int, wanted: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that what the function sets is taken back after the test
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    _show_only_gpu(index)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == wanted


def test_a_gpu_that_is_not_visible_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(LoadError, match="--base-gpu-id 1: CUDA_VISIBLE_DEVICES=3 has no such GPU"):
        _show_only_gpu(1)
