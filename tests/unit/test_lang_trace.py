"""Tracing: what a program appends, without a model; and the constant text that every run of it begins with."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang.ir import SglVariable

from .fake_backend import FakeBackend, within


@sgl.function
def few_shot_qa(s: Any, question: Any) -> None:
    s += "Q: What is the capital of France?\nA: Paris\n"
    s += "Q: " + question + "\n"
    s += "A:" + sgl.gen("answer", stop="\n")


def test_the_graph_holds_every_expression_in_order() -> None:
    tracer = few_shot_qa.trace()
    assert list(map(repr, tracer.nodes)) == [
        "Constant('Q: What is the capital of France?\\nA: Paris\\n')",
        "Constant('Q: ')",
        "Argument(name=question, value=None)",
        "Constant('\\n')",
        "Constant('A:')",
        "Gen('answer')",
    ]
    assert tracer.last_node is not None
    lines = tracer.last_node.print_graph_dfs().splitlines()
    assert lines[0] == f"%0 = {tracer.nodes[0]}"
    assert lines[-1] == "%5 = %4 + Gen('answer')"


def test_arguments_that_are_given_or_bound_are_constants() -> None:
    assert repr(few_shot_qa.trace(question="Why?").nodes[1]) == r"Constant('Q: Why?\n')"
    assert repr(few_shot_qa.bind(question="Who?").trace().nodes[1]) == r"Constant('Q: Who?\n')"
    with pytest.raises(TypeError, match="no parameter 'hint'"):
        few_shot_qa.trace(hint="")


def test_roles_are_the_markup_of_the_backends_template() -> None:
    @sgl.function
    def qa(s: Any, question: Any) -> Any:
        s += sgl.user(question)
        with s.assistant():
            s += sgl.gen("answer")
        s += s.user("Thanks.")
        return s["answer"]

    tracer = qa.trace(backend=FakeBackend(template="qwen"))
    assert [repr(node) for node in tracer.nodes][:4] == [
        r"Constant('<|im_start|>system\n')",
        "Constant('You are a helpful assistant.')",
        r"Constant('<|im_end|>\n')",
        r"Constant('<|im_start|>user\n')",
    ]
    assert sum("Thanks" in repr(node) for node in tracer.nodes) == 1
    assert isinstance(tracer.ret_value, SglVariable)
    assert repr(qa.trace().nodes[0]) == "Constant('USER:')", "without a backend it is SGLang's default template"


def test_programs_that_a_traced_one_calls_are_traced_with_it() -> None:
    @sgl.function
    def expand(s: Any, tip: Any) -> None:
        s += "Expand: " + tip + "\n" + sgl.gen("detail")

    @sgl.function
    def tips(s: Any, topic: Any) -> None:
        s += "Tips for " + topic + ": 1." + sgl.gen("tip", stop="\n")
        branch = expand(tip=s["tip"])
        s += "Tip 1: " + branch["detail"] + sgl.gen("summary")

    tracer = tips.trace()
    assert [repr(node) for node in tracer.child_states[0].nodes][1].startswith("Variable('tip', source=%")
    assert tracer.last_node is not None
    graph = tracer.last_node.print_graph_dfs()
    assert "Gen('detail')" in graph
    assert "Argument(name=topic, value=None)" in graph


def test_a_compiled_program_shows_its_graph_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    @sgl.function
    def about(s: Any, topic: str) -> None:
        s += "About " + topic + sgl.gen("x")  # type: ignore[operator]

    backend = FakeBackend()
    compiled = about.compile(backend=backend)
    compiled.print_graph()
    assert capsys.readouterr().out.splitlines() == [
        "%0 = Constant('About ')",
        "%1 = %0 + Argument(name=topic, value=None)",
        "%2 = %1 + Gen('x')",
    ]
    assert backend.requests == []
    assert compiled.run(topic="a", backend=backend, temperature=0).text() == "About aan answer"
    states = compiled.run_batch([{"topic": "b"}, {"topic": "c"}], backend=backend, temperature=0)
    assert [state.arguments["topic"] for state in states] == ["b", "c"]
    assert {params.temperature for _, params in backend.requests} == {0}


def test_a_program_that_depends_on_its_arguments_cannot_be_compiled() -> None:
    @sgl.function
    def about(s: Any, topic: str) -> None:
        s += "long" if len(topic) > 9 else "short"

    with pytest.raises(TypeError, match="has no value while the program is traced"):
        about.compile()


def test_forks_scopes_and_copies_are_traced() -> None:
    @sgl.function
    def forks(s: Any) -> None:
        with s.var_scope("whole"):
            s += "Begin. "
            group = s.fork(2)
            group += sgl.gen("tip")
            group.join()
            s += s["tip"][0] + "\n"
        with s.copy() as inner:
            inner += sgl.gen("aside")
        s += s["whole"] + s["aside"][0]
        s["set"] = 1
        both = s.fork(2)
        both.join("concate_and_append")

    nodes = [repr(node) for node in forks.trace().nodes]
    for expected in ("VarScopeBegin('whole')", "Fork(number=2)", "VarScopeEnd('whole')", "SetVar('set', 1)"):
        assert expected in nodes
    assert any(node.startswith("Variable('aside'") for node in nodes)
    assert nodes[-1] == "ConcatenateAndAppend(number=2)"


@pytest.mark.parametrize(
    "body",
    [
        lambda s, q: s.__iadd__(f"I want to ask {q}"),
        lambda s, q: s.__iadd__("yes") if q == "x" else None,
        lambda s, q: list(q),
        lambda s, q: {"x": 1}[q],
        lambda s, q: s.text(),
        lambda s, q: int(q),
    ],
    ids=["f-string", "condition", "iteration", "lookup", "text", "number"],
)
def test_what_depends_on_the_value_of_an_argument_is_an_error(body: Any) -> None:
    def program(s: Any, q: Any) -> None:
        body(s, q)

    with pytest.raises((TypeError, KeyError)):
        sgl.function(program).trace()


def test_ub19_a_loop_over_what_is_generated_ends_with_an_error() -> None:
    @sgl.function
    def loops(s: Any) -> None:
        s += sgl.gen("x")
        while s["x"] != "done":
            s += sgl.gen("x")

    with pytest.raises(TypeError, match=r"Variable\('x'.*has no value while the program is traced"):
        within(5, loops.trace)
    within(5, loops.cache, FakeBackend())


def test_ub20_a_program_that_another_thread_runs_meanwhile_runs() -> None:
    ran: list[str] = []

    @sgl.function
    def traced(s: Any) -> None:
        thread = threading.Thread(target=lambda: ran.append(few_shot_qa("Q?", backend=FakeBackend())["answer"]))
        thread.start()
        thread.join(5)

    traced.trace()
    assert ran == ["an answer"]


def test_cache_has_the_text_computed_with_which_every_run_begins() -> None:
    backend = FakeBackend(template="qwen")

    @sgl.function
    def chat(s: Any, question: Any) -> None:
        s += sgl.system("Be brief.")
        s += sgl.user("Q: " + question)
        s += sgl.assistant(sgl.gen("answer"))

    chat.cache(backend)
    few_shot_qa.cache(backend)
    few_shot_qa.bind(question="Q?").cache(backend)
    assert backend.cached == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ: ",
        "Q: What is the capital of France?\nA: Paris\nQ: ",
        "Q: What is the capital of France?\nA: Paris\nQ: Q?\nA:",
    ]


def test_ub18_a_body_that_fails_on_an_unknown_argument_still_has_its_prefix() -> None:
    @sgl.function
    def looks_up(s: Any, q: Any) -> None:
        s += "Constant. "
        s += {"a": "b"}[q]

    backend = FakeBackend()
    looks_up.cache(backend)
    assert backend.cached == ["Constant. "]


def test_nothing_is_cached_where_no_run_begins_like_another() -> None:
    @sgl.function
    def varies(s: Any, q: Any) -> None:
        s += q

    backend = FakeBackend()
    varies.cache(backend)
    assert backend.cached == []
