"""How a command talks and ends: its options for that, its errors and signals as exit codes."""

from __future__ import annotations

import errno
import functools
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from builder import interrupts
from builder.errors import HostError, Interrupted, PrebakeError
from builder.ui import Ui

if TYPE_CHECKING:
    from collections.abc import Callable

Function = Any
"""A click callback; click itself types them no closer."""

BUG = "This is a bug in prebake; the lines above tell where. Please report it with the command."


def options(*added: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Return a decorator that adds several click options, in order."""

    def decorate(function: Function) -> Function:
        return functools.reduce(lambda inner, one: one(inner), reversed(added), function)

    return decorate


_TALK = options(
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How progress is told."),
    click.option("-v", "--verbose", is_flag=True, help="Tell more."),
    click.option("-q", "--quiet", is_flag=True, help="Tell only warnings and errors."),
)


def talking(function: Function) -> Function:
    """Give a command ``--log-format``, ``-v`` and ``-q``, pass it the Ui they make, and turn errors into exit codes."""

    @functools.wraps(function)
    def wrapper(**given: Any) -> None:  # noqa: ANN401 - what click parsed
        ui = Ui(
            form=given.pop("log_format"),
            verbose=given.pop("verbose"),
            quiet=given.pop("quiet"),
            console=bool(given.get("console")),
        )
        try:
            interrupts.listen()
            function(ui, **given)
        except (KeyboardInterrupt, Interrupted):
            interrupts.ignore()
            ui.error(Interrupted("Interrupted. Nothing is left running, and no result is left half-made."))
            sys.exit(Interrupted.exit_code)
        except PrebakeError as error:
            ui.error(error)
            sys.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            ui.error(_trouble(error))
            sys.exit(HostError.exit_code)
        except Exception as error:  # noqa: BLE001 - the last resort
            traceback.print_exc()
            ui.error(PrebakeError(f"{type(error).__name__}: {error}", hint=BUG))
            sys.exit(PrebakeError.exit_code)
        finally:
            ui.close()

    return _TALK(wrapper)


def _trouble(error: OSError) -> HostError:
    """Return the error for a file or a system call that this host refused."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return HostError(f"This host's disk is full{where}.", hint="Make room, or work elsewhere: -o DIR.")
    return HostError(f"This host refused: {error.strerror or error}{where}.", hint="Look at the place and its owner.")
