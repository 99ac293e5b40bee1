"""What a notebook user sees: the magics, and runs shown as text, HTML and live output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """`%load_ext sgl_jupyter`: register the magics, and how states and runs are shown. Loading it again changes nothing."""
    from sgl_jupyter.notebook.batch import show_batches
    from sgl_jupyter.notebook.magics import SglMagics

    if SglMagics.__name__ in ipython.magics_manager.registry:
        return
    magics = SglMagics(ipython)
    ipython.register_magics(magics)
    display_formatter: Any = ipython.display_formatter
    formatter = display_formatter.ipython_display_formatter
    formatter.for_type_by_name("sgl_jupyter.lang.state", "ProgramState", magics.show_state)
    formatter.for_type_by_name("sgl_jupyter.notebook.run", "Run", magics.show_run)
    show_batches(display_formatter)
    shell: Any = ipython
    shell.Completer.custom_matchers.append(magics.completer.match)
