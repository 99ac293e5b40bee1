"""Programs in a real kernel's own event loop: top-level await, streams, cancellation, and blocking reads inside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .notebook_kernel import NotebookKernel, scripted_kernel

PROGRAM = """
import asyncio

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


def test_a_cell_awaits_a_program(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.2, "is"]')
    cell = kernel.run('state = await capital.arun("France")\nprint(state["city"])')
    assert cell.printed == "Paris\n", cell.traceback


def test_a_cell_awaits_many_programs_while_the_loop_is_free(kernel: NotebookKernel) -> None:
    kernel.answers(*['["x", 0.3, "y"]'] * 5)
    cell = kernel.run(
        "ticks = 0\n"
        "async def tick():\n    global ticks\n    while True:\n        ticks += 1\n        await asyncio.sleep(0.02)\n"
        "ticking = asyncio.ensure_future(tick())\n"
        'states = await asyncio.gather(*(capital.arun(of) for of in "ABCDE"))\n'
        'ticking.cancel()\nprint([state["city"] for state in states], ticks > 4)'
    )
    assert cell.printed == "['xy', 'xy', 'xy', 'xy', 'xy'] True\n", cell.traceback


def test_a_cell_streams_text_and_events(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.2, "is"]', '["Ro", 0.2, "me"]')
    cell = kernel.run(
        'async for piece in capital.run("France", stream=True).text_async_iter("city"):\n    print(piece, end="|")\n'
        'async for event in capital.run("Italy", stream=True).log:\n    last = type(event).__name__\nprint(last)'
    )
    assert cell.printed == "Par|is|Finished\n", cell.traceback


def test_cancelling_a_task_ends_its_request(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 60]')
    cell = kernel.run(
        'task = asyncio.ensure_future(capital.arun("France"))\nawait asyncio.sleep(0.5)\ntask.cancel()\n'
        "try:\n    await task\nexcept asyncio.CancelledError:\n    await asyncio.sleep(0.2)\n    print(backend.cancelled)"
    )
    assert cell.printed == "1\n", cell.traceback


def test_an_interrupt_of_an_awaiting_cell_ends_its_request(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 60]', '["Rome"]')
    request = kernel.start('task = asyncio.ensure_future(capital.arun("France"))\nprint("begun")\nawait task')
    cell = kernel.finish(request, interrupt_at="begun")
    assert cell.reply["status"] == "error"
    assert kernel.value("task.cancelled()") == "True"
    kernel.answers('["Rome"]')
    assert kernel.value('capital("Italy")["city"]') == "Rome"


def test_blocking_reads_work_inside_the_running_loop(kernel: NotebookKernel) -> None:
    kernel.answers('["Par", 0.2, "is"]')
    cell = kernel.run('async def read():\n    return capital("France")["city"]\nprint(await read())')
    assert cell.printed == "Paris\n", cell.traceback
