"""The public names of SGLang's language, with their parameters, as section 1 of its study lists them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang import ir
from sgl_jupyter.lang.sampling import RUN_SETTINGS

from .fake_backend import FakeBackend

PUBLIC = """
    function gen gen_int gen_string select image video separate_reasoning system user assistant system_begin system_end user_begin
    user_end assistant_begin assistant_end token_length_normalized greedy_token_selection unconditional_likelihood_normalized
    RuntimeEndpoint Runtime set_default_backend flush_cache get_server_info OpenAI Anthropic LiteLLM VertexAI Crusoe Engine
    ServerArgs global_config __version__
"""
NODES = """
    SglExpr SglExprList SglArgument SglImage SglVideo SglGen SglConstantText SglRoleBegin SglRoleEnd SglSelect SglFork
    SglGetForkItem SglVariable SglVarScopeBegin SglVarScopeEnd SglConcateAndAppend SglCommitLazy REGEX_INT REGEX_FLOAT REGEX_BOOL
    REGEX_STR
"""
SAMPLING = """
    n stop stop_token_ids stop_regex temperature top_p top_k min_p frequency_penalty presence_penalty ignore_eos return_logprob
    logprob_start_len top_logprobs_num return_text_in_logprobs
"""
PARAMETERS = {
    "gen": f"name max_tokens min_tokens {SAMPLING} dtype choices choices_method regex json_schema",
    "gen_int": "name max_tokens",
    "gen_string": "name max_tokens",
    "select": "name choices temperature choices_method",
    "video": "path num_frames",
    "separate_reasoning": "expr model_type",
    "system": "expr",
    "function": "func num_api_spec_tokens",
    "RuntimeEndpoint": "base_url api_key verify chat_template_name",
    "OpenAI": "model_name is_chat_model chat_template is_azure",
    "Anthropic": "model_name",
    "LiteLLM": "model_name chat_template",
    "VertexAI": "model_name safety_settings",
}
"""In SGLang's order: all of them can be given by position."""
MEMBERS = {
    "SglFunction": "arg_names arg_defaults run run_batch bind trace cache compile __call__",
    "ProgramState": """
        get_var set_var __getitem__ __setitem__ __contains__ get_meta_info text messages sync error text_iter text_async_iter fork
        copy var_scope system user assistant stream_executor
    """,
    "ProgramStateGroup": "join __getitem__ __setitem__ __iadd__ __iter__",
}
CONFIGURATION = """
    verbosity default_backend skip_special_tokens_in_output spaces_between_special_tokens_in_out enable_precache_with_tracing
    enable_parallel_encoding
"""
INSIDE = "variables meta_info text_ messages_ cur_role backend chat_template error_ is_finished"


@pytest.mark.parametrize("name", PUBLIC.split())
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(sgl, name) is not None
    assert name == "__version__" or name in sgl.__all__


def test_every_node_can_be_imported_from_one_place() -> None:
    assert [name for name in NODES.split() if not hasattr(ir, name)] == []


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_have_sglangs_names_and_places(name: str) -> None:
    parameters = inspect.signature(getattr(sgl, name)).parameters.values()
    positional = [each.name for each in parameters if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == PARAMETERS[name].split()


def test_a_program_takes_sglangs_sampling_parameters_and_so_do_typed_generations() -> None:
    settings = {"max_new_tokens", *SAMPLING.split()}
    assert settings <= RUN_SETTINGS
    for gen in (sgl.gen_int, sgl.gen_string):
        assert isinstance(gen("x", 5, **dict.fromkeys(SAMPLING.split())), ir.SglGen)


@pytest.mark.parametrize("name", MEMBERS)
def test_the_members_of_programs_states_and_groups(name: str) -> None:
    assert [member for member in MEMBERS[name].split() if not hasattr(getattr(sgl, name), member)] == []


def test_the_configuration_has_sglangs_fields_and_defaults() -> None:
    assert set(CONFIGURATION.split()) <= set(vars(sgl.global_config))
    fresh = type(sgl.global_config)()
    assert (fresh.verbosity, fresh.default_backend, fresh.skip_special_tokens_in_output) == (0, None, True)


def test_the_inside_of_a_state_can_be_read_and_is_not_waited_for() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("Q") + sgl.assistant(sgl.gen("x"))

    backend = FakeBackend()
    state = program.run(backend=backend)
    state.sync()
    inside = state.stream_executor
    assert [name for name in INSIDE.split() if not hasattr(inside, name)] == []
    assert inside.variables == {"x": "an answer"}
    assert inside.meta_info["x"] == state.get_meta_info("x")
    assert (inside.text_, inside.messages_, inside.backend) == (state.text(), state.messages(), backend)
    assert (inside.cur_role, inside.error_, inside.is_finished) == (None, None, True)
    inside.variables["x"] = "something else"
    assert state["x"] == "an answer"


def test_the_flags_of_an_engine_are_one_value() -> None:
    args = sgl.ServerArgs(model_path="tiny-chat", max_total_tokens=64)
    assert (args.model_path, args.max_total_tokens) == ("tiny-chat", 64)
    assert args == sgl.ServerArgs("tiny-chat", max_total_tokens=64)
    for kind in (sgl.Engine, sgl.Runtime):
        with pytest.raises(TypeError, match="model_path"):
            kind()
        with pytest.raises(ValueError, match="which vLLM has not"):
            kind(server_args=sgl.ServerArgs("tiny-chat", engine="vllm"))
