"""The options of `%%sgl` and the completion of its line, in a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .notebook_kernel import NotebookKernel, scripted_kernel


@pytest.fixture(scope="module")
def running_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookKernel]:
    with scripted_kernel(tmp_path_factory.mktemp("notebook")) as kernel:
        yield kernel


@pytest.fixture
def kernel(running_kernel: NotebookKernel) -> NotebookKernel:
    running_kernel.answers()
    return running_kernel


def test_a_dry_run_needs_no_engine(kernel: NotebookKernel) -> None:
    kernel.run("set_default_backend(None)")
    cell = kernel.run('%%sgl --dry\nuser("Why?")\nassistant("Because " + gen("reason"))\nfound = s["reason"]')
    assert cell.reply["status"] == "ok"
    assert cell.shown[-1].endswith("user:\nWhy?\n\nassistant:\nBecause reason=«…»")
    assert kernel.value("found") == "…"


def test_a_dry_run_asks_the_engine_for_nothing(kernel: NotebookKernel) -> None:
    cell = kernel.run('%%sgl --dry\nuser("Why?")\nassistant(gen("reason"))')
    assert "reason=«…»" in cell.shown[-1]
    assert "helpful assistant" in cell.shown[-1]  # from the template of the backend's model
    assert kernel.value("backend.params") == "[]"


def test_all_samples_are_shown_and_kept(kernel: NotebookKernel) -> None:
    kernel.answers('["red", "blue", "green"]', '["one", "two"]')
    cell = kernel.run('%%sgl -n 3\nassistant(gen("colour"))\nassistant(gen("number", n=2))', watched=False)
    (text,) = cell.shown
    assert "colour=«red»\n[2 of 3] «blue»\n[3 of 3] «green»" in text
    assert "number=«one»\n[2 of 2] «two»" in text
    assert kernel.value('s["colour"]') == "['red', 'blue', 'green']"
    assert kernel.value("[p.n for p in backend.params]") == "[3, 2]"


def test_export_makes_variables(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]', '["Rome"]', '["x"]')
    kernel.run('%%sgl\nassistant(gen("city"))')
    assert kernel.value('"city" in globals()') == "False"
    kernel.run('%%sgl --export\nassistant(gen("city") + gen("not a name"))')
    assert kernel.value("city") == "Rome"


def test_export_after_a_stop_gives_what_had_come(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 30]')
    kernel.finish(kernel.start('%%sgl --export\nassistant(gen("story"))'), interrupt_at="Once")
    assert kernel.value("story") == "Once "


def test_in_the_background_the_output_goes_on_while_other_cells_run(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 1, "upon"]')
    request = kernel.start('%%sgl chat --bg\nassistant(gen("story"))')
    cell = kernel.finish(request)
    assert cell.reply["status"] == "ok"
    assert "upon" not in "".join(cell.shown)
    assert kernel.run('print(chat["story"])').printed == "Once upon\n"
    assert kernel.late_update("story=«Once upon»")["parent_header"]["msg_id"] == request


def test_what_runs_in_the_background_can_be_stopped(kernel: NotebookKernel) -> None:
    kernel.answers('[1, "Once ", 30]')
    assert kernel.run('%%sgl chat --bg\nassistant(gen("story"))').reply["status"] == "ok"
    kernel.late_update("story=«Once ")
    assert kernel.run("chat.cancel()").reply["status"] == "ok"
    kernel.late_update("[stopped]")
    assert kernel.value('chat["story"], _sgl.status, backend.cancelled') == "Once  stopped 1"


def test_a_cell_that_is_run_again_meanwhile_has_an_output_of_its_own(kernel: NotebookKernel) -> None:
    kernel.answers('[1, "first"]', '["second"]')
    source = '%%sgl --bg\nassistant(gen("x"))'
    before = kernel.start(source)
    kernel.finish(before)
    again = kernel.start(source)
    kernel.finish(again)
    late = kernel.late_update("x=«first»")
    assert late["parent_header"]["msg_id"] == before
    assert kernel.value('s["x"]') == "second"


def test_nobody_watching_gets_a_background_run_whole(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 0.5, "upon"]')
    cell = kernel.run('%%sgl --bg\nassistant(gen("story"))', watched=False)
    assert [message["msg_type"] for message in cell.messages] == ["display_data"]
    assert cell.shown[0].endswith("story=«Once upon»")


@pytest.mark.parametrize(
    ("view", "types", "printed"),
    [
        ("auto", {"display_data", "update_display_data"}, ""),
        ("live", {"display_data", "update_display_data"}, ""),
        ("static", {"display_data"}, ""),
        ("text", set(), "city=«Paris»\n"),
        ("none", set(), ""),
    ],
)
@pytest.mark.parametrize("how", ["option", "setting"])
def test_a_run_is_shown_as_asked_for(
    kernel: NotebookKernel, view: str, types: set[str], printed: str, how: str
) -> None:
    kernel.answers('["Par", 0.3, "is"]')
    line = f"--view {view}" if how == "option" else ""
    if how == "setting":
        kernel.run(f"%config SglMagics.display = {view!r}")
    cell = kernel.run(f'%%sgl {line}\nassistant(gen("city"))\n1 + 1')
    kernel.run("%config SglMagics.display = 'auto'")
    assert {m["msg_type"] for m in cell.messages} - {"stream", "execute_result"} == types
    assert cell.printed.endswith(printed)
    assert bool(cell.printed) == bool(printed)
    assert cell.of_type("execute_result")


def test_settings_are_the_defaults_of_options(kernel: NotebookKernel) -> None:
    kernel.answers('["a"]', '["b"]')
    kernel.run("%config SglMagics.temperature = 0.25\n%config SglMagics.max_tokens = 9")
    kernel.run('%%sgl\nassistant(gen("x"))')
    kernel.run('%%sgl -t 0 --max-tokens 3\nassistant(gen("x"))')
    kernel.run("%config SglMagics.temperature = None\n%config SglMagics.max_tokens = None")
    assert kernel.value("[(p.temperature, p.max_new_tokens) for p in backend.params]") == "[(0.25, 9), (0.0, 3)]"
    kernel.run("%config SglMagics.engine = 'nobody'")
    cell = kernel.run('%%sgl\nuser("x")')
    kernel.run("%config SglMagics.engine = None")
    assert "there is no engine 'nobody'" in cell.printed


def test_a_setting_that_does_not_exist_is_refused(kernel: NotebookKernel) -> None:
    kernel.run("%config SglMagics.display = 'lively'")
    assert kernel.value("get_ipython().magics_manager.registry['SglMagics'].display") == "auto"


def test_tokens_are_asked_for(kernel: NotebookKernel) -> None:
    kernel.answers('["a"]', '["b"]')
    kernel.run('%%sgl --tokens\nassistant(gen("x"))')
    kernel.run('%%sgl\nassistant(gen("x"))')
    got = kernel.value("[(p.return_logprob, p.return_text_in_logprobs) for p in backend.params]")
    assert got == "[(True, True), (None, None)]"


def test_an_output_says_what_the_engine_does_while_nothing_comes(kernel: NotebookKernel) -> None:
    kernel.answers('[2.5, "Paris"]')
    state = {"running_requests": 2, "waiting_requests": 1}
    kernel.run(f"asked = []; backend.get_server_info = lambda: asked.append(1) or {{'internal_states': [{state}]}}")
    cell = kernel.run('%%sgl\nassistant(gen("city"))')
    pages = [c["data"]["text/html"] for c in cell.of_type("display_data", "update_display_data")]
    assert "waiting for the engine" in pages[0]
    assert any("queued behind 2 requests" in page for page in pages)
    assert not any(words in pages[-1] for words in ("waiting", "queued"))
    assert int(kernel.value("len(asked)")) <= 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-n 0", "'0' is not a number from 1 on"),
        ("--bg --export", "give one of them"),
        ("--tokens -n 2", "give one of them"),
        ("--view lively", "invalid choice: 'lively'"),
        ("--drry", "Did you mean --dry?"),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(kernel: NotebookKernel, line: str, says: str) -> None:
    cell = kernel.run(f'%%sgl {line}\nuser("x")')
    assert cell.reply["ename"] == "UsageError"
    assert says in cell.printed
    assert not cell.shown


def test_tab_offers_commands_options_and_variables(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]')
    kernel.run('%%sgl chat\nassistant(gen("city"))')
    kernel.run("%reload_ext sgl_jupyter")
    assert kernel.completions("%sgl te") == ["terminate"]
    assert kernel.completions("%sgl launch tiny-c") == ["tiny-chat"]
    assert kernel.completions("%%sgl --ex") == ["--export"]
    assert kernel.completions('%%sgl\nx = chat["c') == ["city"]
    assert kernel.completions('s["') == ["city"]
