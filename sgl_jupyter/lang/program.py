"""Programs: functions of a state, and the ways to run them.

A program's body is plain Python. What it appends is executed on the background loop while the body goes on; a state is ended by
whoever runs its body, however the body is left.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from sgl_jupyter.backends.base import Prompt, SamplingParams
from sgl_jupyter.lang.batch import Job, list_jobs, run_jobs
from sgl_jupyter.lang.call import Call
from sgl_jupyter.lang.chat_template import ChatTemplate, get_chat_template, template_of
from sgl_jupyter.lang.compiled import CompiledFunction
from sgl_jupyter.lang.config import global_config, resolve_backend
from sgl_jupyter.lang.document import Document
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.hint import did_you_mean
from sgl_jupyter.lang.interpreter import Interpreter
from sgl_jupyter.lang.ir import SglArgument
from sgl_jupyter.lang.loop import background_loop
from sgl_jupyter.lang.sampling import RUN_SETTINGS, overrides
from sgl_jupyter.lang.state import ProgramState
from sgl_jupyter.lang.tracer import TracerProgramState, constant_prefix, current_tracer, trace

RUN_OPTIONS = frozenset({"stream", "backend", "use_thread"})
"""What `run` takes beside sampling parameters and the program's own arguments."""


def begin_state(backend: Any = None, **sampling_defaults: Any) -> ProgramState:
    """A state whose program is written as you go, outside of any function. `end()` it when no more will be appended.

    Args:
        backend: where to run; without it the default backend.
        sampling_defaults: for every `gen`, by the names that `SglFunction.run` takes.
    """
    return ProgramState(_begin(backend, sampling_defaults))


def _begin(backend: Any, sampling_defaults: Mapping[str, Any], api_tokens: int | None = None) -> Executor:
    place = resolve_backend(backend)
    defaults: dict[str, Any] = {
        "skip_special_tokens": global_config.skip_special_tokens_in_output,
        "spaces_between_special_tokens": global_config.spaces_between_special_tokens_in_out,
    }
    params = SamplingParams(**defaults | overrides(sampling_defaults))
    return Executor(Interpreter(Document(template_of(place)), place, params, api_tokens))


@overload
def function(func: Callable[..., Any]) -> SglFunction: ...
@overload
def function(*, num_api_spec_tokens: int | None = None) -> Callable[[Callable[..., Any]], SglFunction]: ...
def function(
    func: Callable[..., Any] | None = None, num_api_spec_tokens: int | None = None
) -> SglFunction | Callable[[Callable[..., Any]], SglFunction]:
    """Make a program of a Python function whose first parameter is the state, named `s`.

    Args:
        num_api_spec_tokens: for backends that are APIs. A chat model then answers a whole assistant turn by one call of so many
            tokens, of which the turn's generations take theirs; a model that continues text writes so many tokens ahead.

    Raises:
        TypeError: the first parameter is not `s`, another one is named like an option of `run`, or the function is a coroutine
            or a generator.
    """
    if func is None:
        return functools.partial(SglFunction, num_api_spec_tokens=num_api_spec_tokens)
    return SglFunction(func, num_api_spec_tokens)


class SglFunction:
    """A program. Calling it runs it.

    `run` and its kin take the program's own arguments, and among them these keywords, which are the defaults for every `gen` of
    the program, with SGLang's names and values: max_new_tokens=128, min_new_tokens, n, stop, stop_token_ids, stop_regex,
    temperature=1.0, top_p, top_k, min_p, frequency_penalty, presence_penalty, repetition_penalty, ignore_eos, logit_bias, seed,
    return_logprob, logprob_start_len, top_logprobs_num, return_text_in_logprobs. A parameter of the program with one of these
    names is the program's.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        num_api_spec_tokens: int | None = None,
        bind_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, func)
        self.__name__: str = func.__name__
        self.func = func
        self.num_api_spec_tokens = num_api_spec_tokens
        self.bind_arguments = dict(bind_arguments or {})
        self._signature = inspect.signature(func)
        _check_parameters(self)
        self._settings = RUN_SETTINGS - self._signature.parameters.keys()

    def __repr__(self) -> str:
        return f"<program {self.__name__}({', '.join(self._signature.parameters)})>"

    @property
    def arg_names(self) -> list[str]:
        """The parameters after `s` that can be given by position."""
        positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [name for name, each in self._signature.parameters.items() if each.kind in positional][1:]

    @property
    def arg_defaults(self) -> tuple[Any, ...]:
        """The defaults of the last of these."""
        return self.func.__defaults__ or ()

    def bind(self, **kwargs: Any) -> SglFunction:
        """The program with some of its arguments given for good: they win over those of a call."""
        if unknown := kwargs.keys() - self._signature.parameters.keys():
            raise TypeError(f"{self.__name__} has no parameter {sorted(unknown)[0]!r}")
        return SglFunction(self.func, self.num_api_spec_tokens, self.bind_arguments | kwargs)

    def run(self, *args: Any, stream: bool = False, backend: Any = None, **kwargs: Any) -> ProgramState:
        """Run the program, and return its state when the body returns; reading from the state waits for what is read.

        Args:
            stream: return at once, while the body runs in a thread of its own; `text_iter` then gives the text as it arrives.
            backend: where to run, if not on the default backend.
            use_thread: SGLang's, where states own threads; accepted and ignored.

        Raises:
            TypeError: the arguments do not fit the program, or a sampling parameter is unknown.
            Exception: whatever the body raises; with `stream`, at the reads.
        """
        kwargs.pop("use_thread", None)
        settings = {name: kwargs.pop(name) for name in self._settings & kwargs.keys()}
        call = self._call(args, kwargs)
        executor = _begin(backend, settings, self.num_api_spec_tokens)
        if not stream:
            state = call.state(executor)
            call.run(state, state)
            return state
        followed = call.state(executor, followed=True)
        body = functools.partial(call.run_quietly, call.state(executor), followed)
        threading.Thread(target=contextvars.copy_context().run, args=(body,), daemon=True).start()
        return followed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`run`; within a program that is traced, `trace`."""
        tracer = current_tracer()
        return self.run(*args, **kwargs) if tracer is None else self._trace_within(tracer, args, kwargs)

    def trace(self, *, backend: Any = None, **kwargs: Any) -> TracerProgramState:
        """Run the body without generating anything, and return all that it appends, as `nodes` of a graph.

        Arguments that are not given are expressions, which can be appended; so are variables.

        Raises:
            TypeError: the program depends on what is not known then.
        """
        return trace(self.func, self._symbolic(kwargs), TracerProgramState(_known_template(backend)))

    def compile(self, backend: Any = None) -> CompiledFunction:
        """The program, once it is known that what it appends depends on nothing. Raises TypeError if it does."""
        return CompiledFunction(self, backend)

    def cache(self, backend: Any = None) -> None:
        """Have the server compute the text with which every run of the program begins. Blocks.

        To find it, the body is run up to the first thing that depends on an argument or is generated.
        """
        place = resolve_backend(backend)
        prefix = constant_prefix(self.func, self._symbolic({}), template_of(place))
        if prefix:
            asyncio.run_coroutine_threadsafe(place.cache_prefix(Prompt(prefix)), background_loop()).result()

    def _symbolic(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by name, with expressions for those that are neither given nor bound."""
        given = {**given, **self.bind_arguments}
        if unknown := given.keys() - self._signature.parameters.keys():
            raise TypeError(f"{self.__name__} has no parameter {sorted(unknown)[0]!r}")
        named = [p for p in self._signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return {p.name: given.get(p.name, SglArgument(p.name)) for p in named if p.name != "s"}

    def _trace_within(
        self, tracer: TracerProgramState, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> TracerProgramState:
        """Trace a program that a traced one calls."""
        own = {name: value for name, value in kwargs.items() if name not in self._settings | RUN_OPTIONS}
        call = self._call(args, own)
        child = TracerProgramState(get_chat_template("default"), parent=tracer)
        tracer.child_states.append(child)
        return trace(self.func, call.arguments, child)

    async def arun(self, *args: Any, **kwargs: Any) -> ProgramState:
        """`run` for coroutines: wait, without blocking the loop, until all is generated. Cancelling it cancels the program."""
        state = self.run(*args, **kwargs, stream=True)
        try:
            while await state.log.wait_async(len(state.log.events)):
                pass
        finally:
            state.cancel()
        state.sync()
        return state

    def run_batch(
        self,
        batch_kwargs: Sequence[Mapping[str, Any] | Sequence[Any]],
        *,
        backend: Any = None,
        num_threads: int | Literal["auto"] = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        order: Literal["input", "completed"] = "input",
        on_error: Literal["raise", "return"] = "raise",
        **settings: Any,
    ) -> list[ProgramState] | Iterator[ProgramState]:
        """Run the program once for each element of `batch_kwargs`, all at the same time, until all is generated.

        Args:
            batch_kwargs: for each run, a dict of keyword arguments or a list of positional ones.
            num_threads: at most so many runs at a time; "auto" leaves it to the server how many it takes.
            progress_bar: show one on stderr, with the tokens generated per second.
            generator_style: yield the states one by one, as they are done.
            order: in which the states come: that of `batch_kwargs`, or the one in which they are done.
            on_error: "raise" the first error, and stop the other runs; or "return" all states, of which some have an `error()`.
            settings: the defaults for every `gen`.

        Raises:
            TypeError: an element does not fit the program; nothing has been run then.
            BatchInterrupted: on an interrupt, instead of the list; it has all states, and those that had finished are whole.
        """
        if not isinstance(batch_kwargs, list | tuple):
            raise TypeError(f"batch_kwargs must be a list, not {type(batch_kwargs).__name__}")
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", not {on_error!r}')
        if order not in ("input", "completed"):
            raise ValueError(f'order must be "input" or "completed", not {order!r}')
        calls = [self._batch_call(i, item) for i, item in enumerate(batch_kwargs)]
        jobs = []
        for call in calls:
            executor = _begin(backend, settings, self.num_api_spec_tokens)
            state = call.state(executor)
            jobs.append(Job(executor, state, functools.partial(call.run_quietly, state, state)))
        states = run_jobs(jobs, num_threads, progress_bar, raising=on_error == "raise", in_order=order == "input")
        return states if generator_style else list_jobs(jobs, states)

    def _batch_call(self, index: int, item: Mapping[str, Any] | Sequence[Any]) -> Call:
        try:
            if isinstance(item, Mapping):
                return self._call((), item)
            if isinstance(item, list | tuple):
                return self._call(item, {})
            raise TypeError(f"a dict or a list of arguments is needed, not {type(item).__name__}")
        except TypeError as error:
            raise TypeError(f"batch_kwargs[{index}]: {error}") from None

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        kwargs = {**kwargs, **self.bind_arguments}
        try:
            bound = self._signature.bind(None, *args, **kwargs)
        except TypeError as error:
            known = self._signature.parameters.keys()
            hints = [did_you_mean(name, known | self._settings) for name in kwargs if name not in known]
            raise TypeError(f"{self.__name__}(): {error}{''.join(hints[:1])}") from None
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, value in list(bound.arguments.items())[1:]:
            is_open = self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            arguments |= value if is_open else {name: value}
        return Call(self.func, args, kwargs, arguments)


def _known_template(backend: Any) -> ChatTemplate:
    """That of the backend to trace for; SGLang's default one where there is none."""
    try:
        return template_of(resolve_backend(backend))
    except ValueError:
        return get_chat_template("default")


def _check_parameters(program: SglFunction) -> None:
    if inspect.iscoroutinefunction(program.func) or inspect.isgeneratorfunction(program.func):
        raise TypeError(
            f"{program.__name__} must be a plain function; `await {program.__name__}.arun(...)` runs one in a loop"
        )
    first, *others = program._signature.parameters or [None]
    if first != "s":
        raise TypeError(f'The first argument must be "s": {program.__name__} begins with {first!r}')
    if clash := [name for name in others if name in RUN_OPTIONS]:
        raise TypeError(
            f"{program.__name__} has a parameter {clash[0]!r}, which run({clash[0]}=...) takes for itself: give it another name"
        )
