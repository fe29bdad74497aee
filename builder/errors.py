"""What went wrong, said for the person at the terminal.

One tree, one exit code a class. An error carries what a person needs to act:

    PrebakeError            1  a bug in prebake
    ├── UsageError          2  the command line
    ├── AnswersError        3  a bad class file or bad answers
    ├── HostError           4  this host cannot do it
    ├── MediumError         5  download, checksum, signature, layout of an ISO
    ├── RemasterError       6  the ISO cannot be changed without losing a boot path
    ├── MachineError        7  the virtual machine did not start
    ├── InstallError        8  the installer failed
    ├── StalledError        9  nothing happened for too long
    ├── VerificationError  11  an image is not what it should be
    └── Interrupted       130  Ctrl-C or a termination signal
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class PrebakeError(Exception):
    """Something failed, and this is how to tell a person.

    ``message`` says what failed and why in one paragraph; ``hint`` says what to do next; ``console`` holds
    the last lines of the guest's console, if there was one; ``evidence`` is the folder (or file) that keeps
    the rest.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        console: Sequence[str] = (),
        evidence: Path | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.console = tuple(console)
        self.evidence = evidence


class UsageError(PrebakeError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class AnswersError(PrebakeError):
    """The class file or the answers are bad; ``problems`` holds each of them, where they are told one by one."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[Any] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class HostError(PrebakeError):
    """This host lacks a program, an accelerator, memory or disk space."""

    exit_code = 4


class MediumError(PrebakeError):
    """The ISO could not be had, is not genuine or is not a live-server medium."""

    exit_code = 5


class RemasterError(PrebakeError):
    """The ISO cannot be changed without losing something."""

    exit_code = 6


class MachineError(PrebakeError):
    """QEMU did not start, or died."""

    exit_code = 7


class InstallError(PrebakeError):
    """The installer, or the first boot of what it installed, failed."""

    exit_code = 8


class StalledError(PrebakeError):
    """Nothing came from the guest for too long, or it took too long as a whole."""

    exit_code = 9


class VerificationError(PrebakeError):
    """The image is not what it should be."""

    exit_code = 11


class Interrupted(PrebakeError):  # noqa: N818 - the name is what happened
    """A person or the system asked prebake to stop."""

    exit_code = 130
