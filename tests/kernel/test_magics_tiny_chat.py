"""`%%sgl` in a real kernel on the real engine: what an interrupt leaves on it, and what a seed promises."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .notebook_kernel import LIMIT, NotebookKernel

SETUP = """import sgl_jupyter as sgl
from sgl_jupyter import assistant, gen, user
from sgl_jupyter.lifecycle import load_of
engine = sgl.launch("tiny-chat")
sgl.set_default_backend(engine)
engine.endpoint

@sgl.function
def tell(s, of):
    s += user(of)
    s += assistant(gen("story", max_tokens=4000, ignore_eos=True))
"""
LONG = '%%sgl\nuser("Tell me a story.")\nassistant(gen("story", max_tokens=4000, ignore_eos=True))'
BATCH = 'print("started")\ntell.run_batch([["a"], ["b"], ["c"]])'
STREAM = 'state = tell.run("a", stream=True)\nfor piece in state.text_iter("story"):\n    print(piece)'
STOP_SECONDS = 5.0
"""An idle machine takes a few milliseconds; others, who share it with other work, shall not fail here."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookKernel]:
    kernel = NotebookKernel(tmp_path_factory.mktemp("notebook"), [])
    try:
        setup = kernel.run(SETUP)
        assert setup.reply["status"] == "ok", setup.traceback
        yield kernel
    finally:
        kernel.close()


@pytest.mark.parametrize(
    ("cell", "at"), [(LONG, "story=«"), (BATCH, "started"), (STREAM, " ")], ids=["cell", "batch", "stream"]
)
def test_an_interrupt_ends_the_requests_on_the_engine(kernel: NotebookKernel, cell: str, at: str) -> None:
    queued = "ran_after_all = True"
    request, after = kernel.start(cell), kernel.start(queued)
    stopped = kernel.finish(request, interrupt_at=at)
    ended = time.monotonic()
    assert stopped.reply["status"] == "error"
    assert kernel.finish(after).reply["status"] == "aborted"
    while kernel.value("load_of(engine).requests") != "0":
        assert time.monotonic() < ended + STOP_SECONDS
    next_one = kernel.run('%%sgl\nuser("Hi")\nassistant(gen("x", max_tokens=4))')
    assert next_one.reply["status"] == "ok"
    assert time.monotonic() < ended + LIMIT


def test_the_same_seed_changes_nothing_but_metadata(kernel: NotebookKernel) -> None:
    cell = '%%sgl --seed 7 -t 1\nuser("List some countries.")\nassistant(gen("x"))\nassistant(gen("y", n=3))'
    outputs = [kernel.run(cell, watched=False).of_type("display_data") for _ in range(2)]
    (before,), (after,) = outputs
    assert before["data"] == after["data"]
    assert before["metadata"] != after["metadata"]
