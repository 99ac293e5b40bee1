"""`%%sgl` in a real kernel: what its user sees while it runs, after it, and when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from psutil import Process

from ..unit.fake_server import serve
from .notebook_kernel import NotebookKernel, scripted_kernel


@pytest.fixture(scope="module")
def running_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookKernel]:
    with scripted_kernel(tmp_path_factory.mktemp("notebook")) as kernel:
        yield kernel


@pytest.fixture
def kernel(running_kernel: NotebookKernel) -> NotebookKernel:
    running_kernel.answers()
    return running_kernel


def test_text_streams_into_one_output_while_the_body_waits(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.4, "is", 0.4, "."]')
    cell = kernel.run('%%sgl\nuser("Where?")\nassistant(gen("city"))\nlength = len(s["city"])')
    (first,), updates = cell.of_type("display_data"), cell.of_type("update_display_data")
    displays = {content["transient"]["display_id"] for content in [first, *updates]}
    assert len(displays) == 1
    assert any(text.endswith("city=«Par") for text in cell.shown)
    assert all(
        after.startswith(before.removesuffix("»")) for before, after in zip(cell.shown, cell.shown[1:], strict=False)
    )
    assert cell.shown[-1].endswith("assistant:\ncity=«Paris.»")
    assert kernel.value("length") == "6"


def test_what_the_engine_knew_of_the_prompt_is_told_while_text_arrives(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.4, "is"]')
    cell = kernel.run('%%sgl\nuser("Where?")\nassistant(gen("city"))')
    pages = [content["data"]["text/html"] for content in cell.of_type("display_data", "update_display_data")]
    assert any("generating · 1 token · prompt of " in page for page in pages)
    assert "prompt of" not in pages[-1]


def test_a_fast_model_does_not_flood_the_front_end(kernel: NotebookKernel) -> None:
    kernel.answers('["token "] * 2000')
    cell = kernel.run('%%sgl\nassistant(gen("x"))')
    assert cell.shown[-1].count("token") == 2000
    assert len(cell.shown) < 50


def test_the_output_carries_the_record_html_and_text(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]')
    content = kernel.run('%%sgl\nassistant(gen("city"))').of_type("display_data", "update_display_data")[-1]
    assert list(content["data"]) == ["application/vnd.sgl_jupyter.run+json", "text/html", "text/plain"]
    assert content["data"]["application/vnd.sgl_jupyter.run+json"]["status"] == "done"
    assert content["metadata"]["sgl_jupyter"]["usage"]["completion_tokens"] == 1


def test_what_the_body_prints_stays_in_its_place(kernel: NotebookKernel) -> None:
    kernel.answers('["one", 0.3]', '["two"]')
    cell = kernel.run('%%sgl\nassistant(gen("a"))\nprint(s["a"])\nassistant(gen("b"))')
    assert cell.printed == "one\n"
    kinds = [message["msg_type"] for message in cell.messages]
    assert kinds.index("display_data") < kinds.index("stream")


def test_names_are_bound(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]')
    kernel.run('%%sgl chat\nassistant(gen("city"))')
    assert kernel.value('chat["city"], s["city"], _sgl["city"], _sgl.status') == "Paris Paris Paris done"
    assert kernel.value('"_sgl_append" in globals()') == "False"


def test_options_reach_the_engine_and_a_comment_does_not(kernel: NotebookKernel) -> None:
    kernel.answers('["x"]', '["y"]')
    kernel.run(
        '%%sgl -t 0.5 --max-tokens 7 --seed 3  # try "this"\nassistant(gen("a"))\nassistant(gen("b", max_tokens=9))'
    )
    got = kernel.value("[(p.temperature, p.max_new_tokens, p.seed) for p in backend.params]")
    assert got == "[(0.5, 7, 3), (0.5, 9, 3)]"


def test_expressions_in_loops_and_branches_are_appended_but_not_those_in_functions(kernel: NotebookKernel) -> None:
    body = (
        '%%sgl\ndef f():\n    user("not this")\n    return 1\n'
        'for i in range(2):\n    user(f"{i} {{braces}} $dollar")\nif f():\n    "nor this"\n    user("yes")'
    )
    shown = kernel.run(body).shown[-1]
    assert [text for text in ("0 {braces} $dollar", "1 {braces} $dollar", "yes", "this") if text in shown] == [
        "0 {braces} $dollar",
        "1 {braces} $dollar",
        "yes",
    ]


def test_the_last_line_shows_its_value_as_in_any_cell(kernel: NotebookKernel) -> None:
    (result,) = kernel.run('%%sgl\nuser("hi")\n1 + 1').of_type("execute_result")
    assert result["data"]["text/plain"] == "2"
    assert not kernel.run('%%sgl\nuser("hi")\n1 + 1;').of_type("execute_result")
    assert not kernel.run('%%sgl\nuser("hi")').of_type("execute_result")


def test_quiet_shows_nothing(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]')
    cell = kernel.run('%%sgl chat -q\nassistant(gen("city"))')
    assert cell.messages == []
    assert kernel.value('chat["city"]') == "Paris"


def test_a_cell_that_appends_nothing_shows_nothing(kernel: NotebookKernel) -> None:
    assert kernel.run("%%sgl\nx = 1").messages == []


def test_nobody_watching_gets_one_output(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.3, "is"]')
    cell = kernel.run('%%sgl\nassistant(gen("city"))', watched=False)
    assert [message["msg_type"] for message in cell.messages] == ["display_data"]
    assert "display_id" not in cell.of_type("display_data")[0]["transient"]
    assert cell.shown[0].endswith("city=«Paris»")


def test_capture_holds_the_final_output_once(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.3, "is"]')
    kernel.run("%%capture out\nget_ipython().run_cell_magic('sgl', '', 'assistant(gen(\"city\"))')")
    assert kernel.value("len(out.outputs), out.outputs[0].data['text/plain'][-12:]") == "1 city=«Paris»"


def test_running_a_cell_again_and_again_leaves_nothing_behind(kernel: NotebookKernel) -> None:
    kernel.answers(*['["x"]'] * 5, '["Once ", 30]')
    for _ in range(5):
        kernel.run('%%sgl\nassistant(gen("x"))')
    kernel.finish(kernel.start('%%sgl\nassistant(gen("x"))'), interrupt_at="Once")
    assert kernel.value('[t.name for t in __import__("threading").enumerate() if t.name == "sgl-display"]') == "[]"


def test_running_a_cell_again_and_again_leaves_no_connection_behind(kernel: NotebookKernel) -> None:
    with serve() as server:
        kernel.run(f"set_default_backend(RuntimeEndpoint({server.url!r}))")
        for _ in range(5):
            assert "Hello, world!" in kernel.run('%%sgl\nassistant(gen("x"))').shown[-1]
        port = urlsplit(server.url).port
        open_ones = [c for c in Process(kernel.pid).net_connections() if c.raddr and c.raddr.port == port]
        assert len(open_ones) == 1
        assert len(server.connections) <= 2


def test_an_error_of_the_body_points_at_its_line(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]')
    cell = kernel.run('%%sgl chat\nassistant(gen("city"))\ns["city"]\n\ndef f():\n    1 / 0\nf()')
    assert cell.reply["ename"] == "ZeroDivisionError"
    number = cell.reply["execution_count"]
    assert f"Cell In[{number}], line 7" in cell.traceback
    assert f"Cell In[{number}], line 6, in f()" in cell.traceback
    assert "----> 7 f()" in cell.traceback
    assert "magics.py" not in cell.traceback
    assert "city=«Paris»" in cell.shown[-1]
    assert cell.shown[-1].endswith("[failed: ZeroDivisionError: division by zero]")
    assert kernel.value('_sgl["city"], _sgl.status') == "Paris error"


def test_blank_lines_and_shell_lines_leave_the_numbers_alone(kernel: NotebookKernel) -> None:
    cell = kernel.run("%%sgl\n\n  \n# why\n!true\n1 / 0")
    assert f"Cell In[{cell.reply['execution_count']}], line 6" in cell.traceback


def test_a_syntax_error_points_at_its_line(kernel: NotebookKernel) -> None:
    for line in ("x = = 1", "return 1"):
        cell = kernel.run(f'%%sgl\nuser("hi")\n{line}')
        shown = cell.traceback.strip().splitlines()
        assert shown[0].strip() == f"Cell In[{cell.reply['execution_count']}], line 3"
        assert shown[1].strip() == line
        assert shown[-1].startswith("SyntaxError: ")
        assert len(shown) == 4
        assert not cell.shown


def test_what_was_appended_before_an_error_is_carried_out(kernel: NotebookKernel) -> None:
    kernel.answers('[0.3, "Paris"]')
    cell = kernel.run('%%sgl\nuser("Where?")\nassistant(gen("city"))\nuser("And?")\n1 / 0')
    assert "city=«Paris»\n\nuser:\nAnd?\n\n[failed: ZeroDivisionError" in cell.shown[-1]
    assert kernel.value('_sgl["city"]') == "Paris"


def test_an_error_of_the_engine_is_told_without_our_own_lines(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", BackendError("the prompt is too long")]', '["fine"]')
    cell = kernel.run('%%sgl chat\nassistant(gen("city"))')
    assert (cell.reply["ename"], cell.reply["evalue"]) == ("BackendError", "the prompt is too long")
    assert "executor.py" not in cell.traceback
    assert cell.shown[-1].endswith("city=«Par»\n\n[failed: BackendError: the prompt is too long]")
    assert kernel.value('_sgl["city"]') == "Par"
    assert kernel.run('%%sgl\nassistant(gen("x"))').shown[-1].endswith("x=«fine»")


@pytest.mark.parametrize(
    "cell", ['%%sgl\nassistant(gen("city"))\ns["city"]', 'where.run()["city"]', "where.run_batch([{}])"]
)
def test_an_error_of_the_engine_points_at_the_line_that_reads_and_not_into_the_http_library(
    kernel: NotebookKernel, cell: str
) -> None:
    kernel.answers('["Par", BackendError("out of memory")]')
    kernel.run('@function\ndef where(s):\n    s += assistant(gen("city"))')
    ran = kernel.run(cell)
    assert ran.reply["ename"] == "BackendError"
    assert cell.splitlines()[-1] in ran.traceback
    assert "The above exception" not in ran.traceback
    assert "scripted_backend.py" not in ran.traceback


def test_an_engine_that_does_not_answer_is_told_without_our_own_lines(kernel: NotebookKernel) -> None:
    engine = "class Silent:\n    @property\n    def endpoint(self):\n        {does}\nset_default_backend(Silent())"
    kernel.run(engine.format(does="raise BackendError('no answer in 30 s') from OSError()"))
    cell = kernel.run('%%sgl\nuser("x")')
    assert cell.reply["evalue"] == "no answer in 30 s"
    assert "OSError" not in cell.traceback
    assert "config.py" not in cell.traceback
    kernel.run(engine.format(does="print('asked'); __import__('time').sleep(30)"))
    cell = kernel.finish(kernel.start('%%sgl\nuser("x")'), interrupt_at="asked")
    assert cell.traceback == "Stopped while waiting for an answer of the engine."


def test_a_mistake_in_an_expression_points_at_its_line(kernel: NotebookKernel) -> None:
    cell = kernel.run('%%sgl\nuser_begin()\nuser("hi")')
    assert cell.reply["ename"] == "ValueError"
    assert "line 3" in cell.traceback
    assert "cell.py" not in cell.traceback


def test_forks_are_awaited_and_shown(kernel: NotebookKernel) -> None:
    kernel.answers('["left", 0.3]', '["right", 0.5]')
    cell = kernel.run('%%sgl\nuser("go")\nforks = s.fork(2)\nfor f in forks:\n    f += assistant(gen("way"))')
    assert "[fork 1 of 2]" in cell.shown[-1]
    assert "«left»" in cell.shown[-1]
    assert "«right»" in cell.shown[-1]


def test_a_state_on_the_last_line_is_shown_like_a_run(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.3, "is"]')
    kernel.run('@function\ndef where(s):\n    s += assistant(gen("city"))')
    cell = kernel.run("state = where.run()\nstate")
    assert cell.shown[-1].endswith("city=«Paris»")
    assert "<mark" in cell.of_type("display_data", "update_display_data")[-1]["data"]["text/html"]
    assert not cell.of_type("execute_result")
    assert kernel.run("_sgl").shown


def test_a_failed_state_on_the_last_line_says_so(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", BackendError("out of memory")]')
    cell = kernel.run('@function\ndef where(s):\n    s += assistant(gen("city"))\nwhere.run()')
    assert cell.shown[-1].endswith("city=«Par»\n\n[failed: BackendError: out of memory]")


def test_loading_again_changes_nothing(kernel: NotebookKernel) -> None:
    kernel.run("before = get_ipython().magics_manager.registry['SglMagics']")
    matchers = kernel.value("get_ipython().Completer.custom_matchers")
    cell = kernel.run("%reload_ext sgl_jupyter\n%load_ext sgl_jupyter")
    assert cell.reply["status"] == "ok"
    assert kernel.value("get_ipython().magics_manager.registry['SglMagics'] is before") == "True"
    assert kernel.value("get_ipython().Completer.custom_matchers") == matchers


@pytest.mark.parametrize("cell", ['%%sgl -h\nuser("x")', "%sgl", "%sgl help", "%sgl -h", "%%sgl?"])
def test_help(kernel: NotebookKernel, cell: str) -> None:
    ran = kernel.run(cell)
    shown = ran.printed + str(ran.reply["payload"])
    for option in ("--engine", "--temperature", "--max-tokens", "--seed", "--quiet"):
        assert option in shown


def test_help_for_a_cell_without_a_body_is_one_step_away(kernel: NotebookKernel) -> None:
    cell = kernel.run("%%sgl -h")
    assert cell.reply["ename"] == "UsageError"  # raised by IPython before any cell magic is called
    assert "Did you mean the line magic %sgl" in cell.printed


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--tempature 3", "unknown option --tempature. Did you mean --temperature?"),
        ("-t warm", "invalid float value: 'warm'"),
        ("for", "'for' is not a Python variable name"),
        ("a b", "unrecognized arguments: b"),
        ('"open', "No closing quotation"),
        ("--engine nobody", "there is no engine 'nobody'"),
    ],
)
def test_a_mistyped_line_is_told_in_one_sentence(kernel: NotebookKernel, line: str, says: str) -> None:
    cell = kernel.run(f'%%sgl {line}\nuser("x")')
    assert cell.reply["ename"] == "UsageError"
    assert says in cell.printed
    assert "Traceback" not in cell.printed
    assert not cell.shown


def test_without_an_engine_the_error_says_what_to_type(kernel: NotebookKernel) -> None:
    kernel.run("set_default_backend(None)")
    cell = kernel.run('%%sgl\nuser("x")')
    assert cell.reply["status"] == "error"
    assert "%sgl launch tiny-chat" in cell.printed


def test_the_size_cap_is_a_setting(kernel: NotebookKernel) -> None:
    kernel.run("%config SglMagics.max_saved_chars = 100")
    kernel.answers('["token "] * 100')
    shown = kernel.run('%%sgl\nassistant(gen("x"))').shown[-1]
    kernel.run("%config SglMagics.max_saved_chars = 200_000")
    assert "more characters are not shown here" in shown
    assert kernel.value('len(s["x"])') == "600"
