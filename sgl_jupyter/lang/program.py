"""Programs: functions of a state, and the ways to run them.

A program's body is plain Python. What it appends is executed on the background loop while the body goes on; a state is ended by
whoever runs its body, however the body is left.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, overload

from sgl_jupyter.backends.base import SamplingParams
from sgl_jupyter.lang.batch import Job, run_jobs
from sgl_jupyter.lang.chat_template import get_chat_template, get_chat_template_by_model_path
from sgl_jupyter.lang.config import global_config, resolve_backend
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.interpreter import Interpreter
from sgl_jupyter.lang.sampling import RUN_SETTINGS, overrides
from sgl_jupyter.lang.state import ProgramState


def begin_state(backend: Any = None, **sampling_defaults: Any) -> ProgramState:
    """A state whose program is written as you go, outside of any function. `end()` it when no more will be appended.

    Args:
        backend: where to run; without it the default backend.
        sampling_defaults: for every `gen`, by the names that `SglFunction.run` takes.
    """
    return ProgramState(_begin(backend, sampling_defaults))


def _begin(backend: Any, sampling_defaults: Mapping[str, Any]) -> Executor:
    place = resolve_backend(backend)
    name = place.chat_template_name
    template = get_chat_template(name) if name else get_chat_template_by_model_path(place.model_path)
    defaults: dict[str, Any] = {
        "skip_special_tokens": global_config.skip_special_tokens_in_output,
        "spaces_between_special_tokens": global_config.spaces_between_special_tokens_in_out,
    }
    return Executor(Interpreter(place, template, SamplingParams(**defaults | overrides(sampling_defaults))))


@overload
def function(func: Callable[..., Any]) -> SglFunction: ...
@overload
def function(*, num_api_spec_tokens: int | None = None) -> Callable[[Callable[..., Any]], SglFunction]: ...
def function(
    func: Callable[..., Any] | None = None, num_api_spec_tokens: int | None = None
) -> SglFunction | Callable[[Callable[..., Any]], SglFunction]:
    """Make a program of a Python function whose first parameter is the state, named `s`.

    Args:
        num_api_spec_tokens: SGLang's, for backends that are chat APIs; others have no use for it.

    Raises:
        TypeError: the first parameter is not `s`, or another one has a name that `run` takes for itself.
    """
    if func is None:
        return functools.partial(SglFunction, num_api_spec_tokens=num_api_spec_tokens)
    return SglFunction(func, num_api_spec_tokens)


class SglFunction:
    """A program. Calling it runs it.

    `run` and its kin take the program's own arguments, and among them these keywords, which are the defaults for every `gen` of
    the program, with SGLang's names and values: max_new_tokens=128, min_new_tokens, n, stop, stop_token_ids, stop_regex,
    temperature=1.0, top_p, top_k, min_p, frequency_penalty, presence_penalty, repetition_penalty, ignore_eos, logit_bias, seed,
    return_logprob, logprob_start_len, top_logprobs_num, return_text_in_logprobs.
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
        settings = {name: kwargs.pop(name) for name in RUN_SETTINGS & kwargs.keys()}
        call = self._call(args, kwargs)
        executor = _begin(backend, settings)
        if not stream:
            state = ProgramState(executor)
            call(state, state)
            return state
        followed = ProgramState(executor, followed=True)
        body = functools.partial(_quietly, call, ProgramState(executor), followed)
        threading.Thread(target=contextvars.copy_context().run, args=(body,), daemon=True).start()
        return followed

    __call__ = run

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
        on_error: Literal["raise", "return"] = "raise",
        **settings: Any,
    ) -> list[ProgramState] | Iterator[ProgramState]:
        """Run the program once for each element of `batch_kwargs`, all at the same time, until all is generated.

        Args:
            batch_kwargs: for each run, a dict of keyword arguments or a list of positional ones.
            num_threads: at most so many runs at a time; "auto" leaves it to the server how many it takes.
            progress_bar: show one on stderr.
            generator_style: yield the states one by one, in the order of `batch_kwargs`, as they are done.
            on_error: "raise" the first error, and stop the other runs; or "return" all states, of which some have an `error()`.
            settings: the defaults for every `gen`.

        Raises:
            TypeError: an element does not fit the program; nothing has been run then.
        """
        if not isinstance(batch_kwargs, list | tuple):
            raise TypeError(f"batch_kwargs must be a list, not {type(batch_kwargs).__name__}")
        if on_error not in ("raise", "return"):
            raise ValueError(f'on_error must be "raise" or "return", not {on_error!r}')
        calls = [self._batch_call(i, item) for i, item in enumerate(batch_kwargs)]
        jobs = []
        for call in calls:
            executor = _begin(backend, settings)
            state = ProgramState(executor)
            jobs.append(Job(executor, state, functools.partial(_quietly, call, state, state)))
        states = run_jobs(jobs, num_threads, progress_bar, raising=on_error == "raise")
        return states if generator_style else list(states)

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
        """The body with its arguments, which runs it with a state and leaves what it returns at a handle of that state."""
        kwargs = {**kwargs, **self.bind_arguments}
        try:
            self._signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.__name__}(): {error}") from None

        def call(state: ProgramState, handle: ProgramState) -> None:
            try:
                handle.ret_value = self.func(state, *args, **kwargs)
            except Exception as error:
                state.fail(error)
                raise
            except BaseException:
                state.cancel()
                raise
            state.end()

        return call


Call = Callable[[ProgramState, ProgramState], None]


def _quietly(call: Call, state: ProgramState, handle: ProgramState) -> None:
    """Run a body in a thread that is not its caller's: the state tells its error to whoever reads."""
    with suppress(BaseException):
        call(state, handle)


def _check_parameters(program: SglFunction) -> None:
    first, *others = program._signature.parameters or [None]
    if first != "s":
        raise TypeError(f'The first argument must be "s": {program.__name__} begins with {first!r}')
    if clash := [name for name in others if name in RUN_SETTINGS | {"stream", "backend", "use_thread"}]:
        raise TypeError(
            f"{program.__name__} has a parameter {clash[0]!r}, which run({clash[0]}=...) takes for itself: give it another name"
        )
