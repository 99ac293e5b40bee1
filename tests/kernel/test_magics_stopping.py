"""What an interrupt leaves of cells, batches and streams in a real kernel; and how batches are shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .notebook_kernel import NotebookKernel, scripted_kernel

PROGRAM = """
@function
def capital(s, of):
    s += user(of)
    s += assistant(gen("city"))
"""


@pytest.fixture(scope="module")
def running_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookKernel]:
    with scripted_kernel(tmp_path_factory.mktemp("notebook")) as kernel:
        kernel.run(PROGRAM)
        yield kernel


@pytest.fixture
def kernel(running_kernel: NotebookKernel) -> NotebookKernel:
    running_kernel.answers()
    return running_kernel


def test_a_batch_is_shown_as_a_table(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]', '["Rome"]')
    cell = kernel.run('capital.run_batch([{"of": "France"}, {"of": "Italy"}], num_threads=1)')
    (result,) = cell.of_type("execute_result")
    assert [line.split() for line in result["data"]["text/plain"].splitlines()] == [
        ["#", "of", "city", "status", "tokens"],
        ["0", "France", "Paris", "done", "1"],
        ["1", "Italy", "Rome", "done", "1"],
    ]
    assert result["data"]["text/html"].count("<mark") == 2
    assert kernel.run("[1, [2]]").of_type("execute_result")[0]["data"] == {"text/plain": "[1, [2]]"}


def test_runs_that_go_on_are_awaited(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.4, "is"]')
    (result,) = kernel.run('[capital.run("France", stream=True)]').of_type("execute_result")
    assert "Paris" in result["data"]["text/plain"]


def test_an_interrupt_while_a_table_waits_stops_its_runs(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 30]', '["Ro", 30]', '["next"]')
    request = kernel.start('states = [capital.run(of) for of in "FI"]\nprint("started")\nstates')
    cell = kernel.finish(request, interrupt_at="started")
    assert cell.reply["ename"] == "KeyboardInterrupt"
    assert kernel.value("[state.error() for state in states], backend.cancelled") == "[None, None] 2"
    assert kernel.run('%%sgl\nassistant(gen("x"))').shown[-1].endswith("x=«next»")


def test_the_states_of_an_interrupted_batch_are_at_hand_in_the_next_cell(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]', '["Ro", 30]')
    program = (
        "@function\ndef told(s, of):\n    print(of)\n    s += user(of)\n    s += assistant(gen('city'))\n"
        'told.run_batch([["France"], ["Italy"]], num_threads=1)'
    )
    cell = kernel.finish(kernel.start(program), interrupt_at="Italy")
    assert cell.reply["ename"] == "BatchInterrupted"
    assert "1 of 2 runs had finished" in cell.reply["evalue"]
    assert kernel.value("[state.finished for state in __import__('sys').last_value.states]") == "[True, False]"
    assert kernel.value("__import__('sys').last_value.states[0]['city']") == "Paris"


def test_an_interrupted_batch_keeps_what_is_finished(kernel: NotebookKernel) -> None:
    kernel.answers('["Paris"]', '["Ro", 30]', '["never"]', '["next"]')
    loop = (
        "done = []\n"
        'for state in capital.run_batch([["F"], ["I"], ["S"]], num_threads=1, generator_style=True):\n'
        '    done.append(state)\n    print(state["city"])'
    )
    cell = kernel.finish(kernel.start(loop), interrupt_at="Paris")
    assert cell.reply["ename"] == "KeyboardInterrupt"
    assert kernel.value('[state["city"] for state in done], backend.cancelled') == "['Paris'] 1"
    assert kernel.value("len(backend.answers)") == "2"
    kernel.run("backend.answers.pop(0)")
    assert kernel.run('%%sgl\nassistant(gen("x"))').shown[-1].endswith("x=«next»")


def test_an_interrupted_stream_keeps_its_text(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 30]', '["next"]')
    loop = 'state = capital.run("F", stream=True)\nfor piece in state.text_iter("city"):\n    print(piece)'
    cell = kernel.finish(kernel.start(loop), interrupt_at="Once")
    assert cell.reply["ename"] == "KeyboardInterrupt"
    assert kernel.value('state["city"], backend.cancelled') == "Once  1"
    assert kernel.run('%%sgl\nassistant(gen("x"))').shown[-1].endswith("x=«next»")


def test_interrupt_stops_the_request_and_keeps_the_text(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 30, "never"]', '["next"]')
    request = kernel.start('%%sgl chat\nassistant(gen("story"))\ns["story"]')
    queued = kernel.start("ran_after_all = True")
    cell = kernel.finish(request, interrupt_at="Once")
    assert (cell.reply["status"], cell.reply["ename"]) == ("error", "Interrupted")
    assert cell.traceback == "Stopped. The text and variables so far are in `s` and `_sgl`."
    assert cell.shown[-1].endswith("story=«Once »\n\n[stopped]")
    assert kernel.finish(queued).reply["status"] == "aborted"
    assert kernel.value('chat["story"], _sgl.status, backend.cancelled') == "Once  stopped 1"
    assert kernel.run('%%sgl\nassistant(gen("x"))').shown[-1].endswith("x=«next»")


def test_interrupt_while_the_magic_waits_for_the_end(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 30]')
    cell = kernel.finish(kernel.start('%%sgl\nassistant(gen("story"))'), interrupt_at="Once")
    assert cell.reply["ename"] == "Interrupted"
    assert kernel.value('s["story"], backend.cancelled') == "Once  1"


def test_a_second_interrupt_changes_nothing(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 30]', '["next"]', "farewell=3")
    cell = kernel.finish(kernel.start('%%sgl\nassistant(gen("story"))'), interrupt_at="Once", again_after=0.3)
    assert cell.reply["ename"] == "Interrupted"
    assert "story=«Once " in cell.shown[-1]
    assert kernel.run('%%sgl\nassistant(gen("x"))').shown[-1].endswith("x=«next»")


def test_interrupt_while_a_state_is_shown(kernel: NotebookKernel) -> None:
    kernel.answers('["Once ", 30]')
    kernel.run('@function\ndef tell(s):\n    s += assistant(gen("story"))')
    cell = kernel.finish(kernel.start("state = tell.run()\nstate"), interrupt_at="Once")
    assert cell.reply["ename"] == "Interrupted"
    assert cell.shown[-1].endswith("story=«Once »\n\n[stopped]")
    assert kernel.value('state["story"], backend.cancelled') == "Once  1"


def test_interrupt_while_the_body_computes(kernel: NotebookKernel) -> None:
    cell = kernel.finish(kernel.start('%%sgl\nuser("hi")\nimport time\ntime.sleep(30)'), interrupt_at="hi")
    assert cell.reply["ename"] == "Interrupted"
    assert cell.shown[-1].endswith("[stopped]")
