"""The magics: `%sgl` for engines, `%%sgl` for programs written in a cell.

Whatever a magic remembers, the engines it launched above all, is held by the one `SglMagics` of the shell.
"""

from __future__ import annotations

import argparse
import inspect
import keyword
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    no_var_expand,
    output_can_be_silenced,
)
from traitlets import Enum, Float, Int, Unicode

from sgl_jupyter.lang.config import global_config, resolve_backend
from sgl_jupyter.lang.dry import DryBackend
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.lang.state import ProgramState
from sgl_jupyter.lifecycle.waiting import WaitInterrupted
from sgl_jupyter.notebook.arguments import HelpRequested, MagicParser, count, split, variable_name
from sgl_jupyter.notebook.cell import Body
from sgl_jupyter.notebook.completion import Completer
from sgl_jupyter.notebook.display import VIEWS, RunDisplay, sink_for
from sgl_jupyter.notebook.engines import EngineCommands
from sgl_jupyter.notebook.run import Run

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

STOP_GRACE = 1.0
"""Seconds that an interrupted run has to take leave of the engine. A second interrupt takes them away."""


class Interrupted(KeyboardInterrupt):
    """The user interrupted a `%%sgl` cell. It is an interrupt still, so that the cells queued behind it do not run."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [str(self)]


def _explained_by(parser: MagicParser) -> Callable[[Any], Any]:
    """Gives a magic the parser's help as documentation, which is what `%%sgl?` shows."""

    def explained(magic: Any) -> Any:
        magic.__doc__ = f"{inspect.cleandoc(magic.__doc__)}\n\n{parser.format_help()}"
        return magic

    return explained


def _cell_parser() -> MagicParser:
    parser = MagicParser(
        "%%sgl",
        "Run the cell as a program and show its text as it is generated.",
        epilog="The cell is Python with a state `s`. An expression that stands alone is appended to it:\n\n"
        '    %%sgl chat\n    user("What is the capital of France?")\n    assistant(gen("answer", max_tokens=32))\n\n'
        'Afterwards chat["answer"] is the answer, and `_sgl` the record of the run.',
    )
    parser.add_argument("out", nargs="?", metavar="OUT", type=variable_name, help="bind the state to this name, too")
    parser.add_argument("--engine", metavar="NAME", help="the engine to run on, if not the default backend")
    parser.add_argument("-t", "--temperature", type=float, metavar="T", help="for every gen that names none")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="for every gen that names none")
    parser.add_argument("--seed", type=int, metavar="N", help="for every gen that names none")
    parser.add_argument("-n", type=count, metavar="K", help="draw K samples for every gen that names no n")
    parser.add_argument(
        "--dry", action="store_true", help="show the prompt with holes and first choices; needs no engine"
    )
    parser.add_argument("--export", action="store_true", help="make each variable of the program one of the notebook")
    parser.add_argument(
        "--bg", action="store_true", help="go on to the next cell while the rest is generated; s.cancel() stops it"
    )
    parser.add_argument(
        "--view", choices=VIEWS, help="how to show the run: live, static (once, at its end), text, none; or auto"
    )
    parser.add_argument("--tokens", action="store_true", help="shade each generated token: the darker, the less likely")
    parser.add_argument("-q", "--quiet", action="store_true", help="show nothing, not even the last line's value")
    return parser


@magics_class
class SglMagics(Magics):
    """`%sgl` and `%%sgl`; `%config SglMagics` shows the settings."""

    max_saved_chars = Int(200_000, min=0, help="How many characters of a run its output shows and saves.").tag(
        config=True
    )
    display = Enum(
        VIEWS,
        "auto",
        help="How runs are shown: live, static (once, at the end), text, none; "
        "or auto: live where a user watches, static where a tool runs the notebook.",
    ).tag(config=True)
    engine = Unicode(None, allow_none=True, help="Where cells run that have no --engine.").tag(config=True)
    temperature = Float(None, allow_none=True, help="For cells that have no --temperature.").tag(config=True)
    max_tokens = Int(None, allow_none=True, help="For cells that have no --max-tokens.").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._shell = shell
        self._cell_parser = _cell_parser()
        self._engines = EngineCommands(self)
        self.completer = Completer(shell, self._cell_parser, self._engines)

    @no_var_expand
    @line_magic("sgl")
    def sgl_line(self, line: str) -> None:
        """Launch, watch and end engines: `%sgl help` lists the commands."""
        words = split(line)
        if not words or words[0] in ("help", "-h", "--help"):
            print(f"{self._engines.help()}\n\n{self._cell_parser.format_help()}")
            return
        try:
            self._engines.run(words)
        except HelpRequested as help_text:
            print(help_text)

    @no_var_expand
    @output_can_be_silenced
    @cell_magic("sgl")
    @_explained_by(_cell_parser())
    def sgl_cell(self, line: str, cell: str) -> Any:
        """`%%sgl`: a cell that is a program."""
        __tracebackhide__ = True
        try:
            arguments = self._cell_parser.parse(split(line))
            self._check(arguments)
        except HelpRequested as help_text:
            print(help_text)
            return None
        body = Body.compile(self._shell, line, cell)
        place = self._place(arguments)
        backend = _reached(place)
        state = self._begin(backend, arguments)
        view = "none" if arguments.quiet else arguments.view or self.display
        sink = sink_for(self._shell, self.max_saved_chars, view)
        display = RunDisplay(state.log, sink, backend.get_server_info)
        namespace = self._shell.user_ns
        namespace["_sgl"] = display.run
        if arguments.out:
            namespace[arguments.out] = state
        try:
            with display:
                value = _run(body, state, display, namespace, arguments.bg)
        except ConnectionError:
            if death := self._engines.death_of(place):
                raise death from None
            raise
        finally:
            if arguments.export:
                namespace.update(_exportable(display.run))
        return None if arguments.quiet else value

    def show_state(self, state: ProgramState) -> None:
        """Show a state that stands on the last line of an ordinary cell, as a `%%sgl` cell shows its own."""
        with RunDisplay(state.log, sink_for(self._shell, self.max_saved_chars, self.display)) as display:
            try:
                state.error()  # waits for what was appended; an error is shown with the run
                if state.log.closed:
                    display.wait()
            except KeyboardInterrupt:
                _stop(state, display)
                raise Interrupted("Stopped. The text and variables so far are kept.") from None

    def show_run(self, run: Run) -> None:
        sink_for(self._shell, self.max_saved_chars, self.display).finish(run)

    def _check(self, arguments: argparse.Namespace) -> None:
        """Raises UsageError for options that do not go together."""
        if arguments.export and arguments.bg:
            self._cell_parser.error("--export takes values that --bg does not wait for; give one of them")
        if arguments.tokens and arguments.n:
            self._cell_parser.error("--tokens shades one answer, of which -n draws several; give one of them")

    def _begin(self, backend: Any, arguments: argparse.Namespace) -> ProgramState:
        return begin_state(
            backend,
            n=arguments.n,
            temperature=self.temperature if arguments.temperature is None else arguments.temperature,
            max_new_tokens=self.max_tokens if arguments.max_tokens is None else arguments.max_tokens,
            seed=arguments.seed,
            return_logprob=arguments.tokens or None,
            return_text_in_logprobs=arguments.tokens or None,
        )

    def _place(self, arguments: argparse.Namespace) -> Any:
        """Where the cell is to run: a backend or an engine."""
        __tracebackhide__ = True
        name = arguments.engine or self.engine
        if arguments.dry and not name:
            return DryBackend(like=global_config.default_backend)
        backend = self._engines.backend(name)
        return DryBackend(like=backend) if arguments.dry else backend


def _reached(place: Any) -> Any:
    """The backend at `place`, which may be an engine that has to be waited for.

    If it does not answer, none of the lines between that and the cell are to blame, so none are shown.
    """
    __tracebackhide__ = True
    try:
        return resolve_backend(place)
    except WaitInterrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted("Stopped while waiting for an answer of the engine.") from None
    except RuntimeError as error:
        raise error.with_traceback(None) from None


def _run(body: Body, state: ProgramState, display: RunDisplay, namespace: dict[str, Any], goes_on: bool) -> Any:
    """Run the body until all is generated, and see to it that the state has ended, however that went.

    With `goes_on`, what the body does not wait for is generated after it, where that can be shown.
    """
    __tracebackhide__ = True
    try:
        value = _run_body(body, state, namespace)
        state.end()
        if goes_on and display.go_on():
            return value
        if error := state.error():
            raise error.with_traceback(None)  # no line of the cell is to blame, and ours say nothing to its author
        display.wait()
        return value
    except KeyboardInterrupt:
        _stop(state, display)
        raise Interrupted("Stopped. The text and variables so far are in `s` and `_sgl`.") from None
    except Exception as error:
        state.fail(error)
        display.wait(STOP_GRACE)
        raise
    except BaseException:
        state.cancel()
        raise


def _run_body(body: Body, state: ProgramState, namespace: dict[str, Any]) -> Any:
    """Run the body. If it fails, what it has appended before is carried out: what is shown is no matter of speed."""
    __tracebackhide__ = True
    try:
        return body.run(state, namespace)
    except Exception:
        state.error()
        raise


def _exportable(run: Run) -> dict[str, Any]:
    """The variables that Python can have under their names."""
    return {name: value for name, value in run.variables.items() if name.isidentifier() and not keyword.iskeyword(name)}


def _stop(state: ProgramState, display: RunDisplay) -> None:
    state.cancel()
    with suppress(KeyboardInterrupt):
        display.stop(STOP_GRACE)
