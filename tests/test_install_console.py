from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.install.console import ConsoleParser
from builder.install.signals import (
    CommandRunning,
    ConsoleEvent,
    CrashReport,
    EarlyCommands,
    ErrorLine,
    GuestDiskFull,
    KernelMessage,
    KernelPanic,
    MediumDamaged,
    MediumMissing,
    OutOfMemory,
    Output,
    PowerState,
    Prompt,
    Sentinel,
    Step,
)

TOKEN = "0123456789abcdef"


def events(data: bytes) -> list[ConsoleEvent]:
    parser = ConsoleParser()
    return [*parser.feed(data), *parser.flush()]


def only(line: str) -> ConsoleEvent:
    (event,) = events(line.encode() + b"\r\n")
    return event


@pytest.mark.parametrize(
    ("line", "kind", "path", "text", "depth"),
    [
        ("start: subiquity/Meta/status_GET: ", "start", "subiquity/Meta/status_GET", "", 0),
        ("start: subiquity/Meta/status_GET", "start", "subiquity/Meta/status_GET", "", 0),
        (
            "finish:   subiquity/Install/install/configure_apt: configuring apt",
            "finish",
            "subiquity/Install/install/configure_apt",
            "configuring apt",
            1,
        ),
        (
            "start:       subiquity/a/b/c/d/: removing previous: all",
            "start",
            "subiquity/a/b/c/d/",
            "removing previous: all",
            3,
        ),
        (
            "warning: subiquity/core_validation/top_level_keys: Unrecognized top-level key 'storgage'",
            "warning",
            "subiquity/core_validation/top_level_keys",
            "Unrecognized top-level key 'storgage'",
            0,
        ),
        ("error: subiquity/x: bad", "error", "subiquity/x", "bad", 0),
        ("info: subiquity/x: good", "info", "subiquity/x", "good", 0),
    ],
)
def test_steps(line: str, kind: str, path: str, text: str, depth: int) -> None:
    event = only(line)
    assert isinstance(event, Step)
    assert (event.kind, event.path, event.text, event.depth) == (kind, path, text, depth)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("An error occurred. Press enter to start a shell", "error-shell"),
        ("left over An error occurred. Press enter to start a shell", "error-shell"),
        ("Continue with autoinstall? (yes|no)", "confirm"),
        ("      [ Continue in basic mode > ]", "interactive"),
        ("demo login: ", "login"),
        ("grub rescue> ", "grub-rescue"),
        ("grub> ", "grub-rescue"),
        ("(initramfs) ", "initramfs"),
        ("You are in emergency mode. After logging in, type", "emergency-shell"),
        ("Press Enter for maintenance", "emergency-shell"),
        ("dracut:/# ", "emergency-shell"),
        ("Please remove the installation medium, then press ENTER: ", "press-enter-remove-medium"),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", ""])
def test_prompts_with_and_without_line_end(line: str, kind: str, end: str) -> None:
    parser = ConsoleParser()
    found = [*parser.feed(("before\r\n" + line + end).encode()), *parser.peek()]
    assert [event.kind for event in found if isinstance(event, Prompt)] == [kind]


@pytest.mark.parametrize(
    "line",
    [
        "  running echo 'An error occurred. Press enter to start a shell'",
        "start:  subiquity/Late/run/command_0: echo An error occurred. Press enter to start a shell",
        "echo An error occurred. Press enter to start a shell",
        "error: can't find command `grub_platform'.",
        "[FAILED] Failed unmounting cdrom.mount - /cdrom.",
        "[  860.262317] systemd-shutdown[1]: Could not detach loopback /dev/loop2: Device or resource busy",
        "[    1.923158] Initramfs unpacking failed: Decoding failed",
        "GNU GRUB  version 2.06",
        "Last login: Mon Nov 23 on ttyS0",
        "systemd-logind.service - User Login Management...",
    ],
)
def test_what_only_looks_like_trouble(line: str) -> None:
    assert not isinstance(only(line), Prompt | KernelPanic | OutOfMemory | MediumMissing | PowerState)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("[   12.345678] reboot: Power down", PowerState),
        ("[   12.345678][    T1] reboot: Restarting system", PowerState),
        ("reboot: Restarting system", PowerState),
        ("[    2.1] not a stamp", Output),
        ("[    2.100000] Kernel panic - not syncing: VFS: Unable to mount root fs", KernelPanic),
        ("[  300.100000] Out of memory: Killed process 1234 (python3) total-vm:1kB", OutOfMemory),
        ("[    1.100000] Initramfs unpacking failed: write error", OutOfMemory),
        ("[    1.100000] SQUASHFS error: Unable to read data cache entry", MediumDamaged),
        ("[    1.100000] I/O error, dev sr0, sector 12 op 0x0:(READ)", MediumDamaged),
        ("Unable to find a medium containing a live file system", MediumMissing),
        ("(initramfs) Unable to find a live file system on the network", MediumMissing),
        ("tar: write error: No space left on device", GuestDiskFull),
        ("E: Unable to locate package nosuch", ErrorLine),
        ("error: no such device: 1234.", ErrorLine),
        ("running early commands", EarlyCommands),
        ("  running echo hello", CommandRunning),
        ("[    0.000000] Linux version 6.12", KernelMessage),
        ("generating crash report", CrashReport),
    ],
)
def test_typed_lines(line: str, event: type[ConsoleEvent]) -> None:
    assert type(only(line)) is event


def test_crash_report_tells_kind_and_path() -> None:
    path = "/var/crash/1795417569.375989437.install_fail.crash"
    step = "subiquity/ErrorReporter/1795417569.375989437.install_fail/add_info"
    start, finish = events(f"start:  {step}: \r\nfinish:  {step}: written to {path}\r\n".encode())
    assert isinstance(start, CrashReport)
    assert isinstance(finish, CrashReport)
    assert (start.kind, start.path) == ("install_fail", None)
    assert (finish.kind, finish.path) == ("install_fail", path)


def test_kernel_line_within_another() -> None:
    data = (
        b"start:  subiquity/Inst[   12.345678] foo: bar\r\n"
        b"[   12.345679] second\r\n"
        b"all/install/configure_apt: configuring apt\r\n"
    )
    first, second, step = events(data)
    assert isinstance(first, KernelMessage)
    assert isinstance(second, KernelMessage)
    assert (first.stamp, first.text) == (12.345678, "foo: bar")
    assert isinstance(step, Step)
    assert (step.path, step.text) == ("subiquity/Install/install/configure_apt", "configuring apt")


def test_two_kernel_lines_whose_line_end_was_lost() -> None:
    assert [event.line for event in events(b"[    1.000000] a[    2.000000] b\r\n")] == [
        "[    1.000000] a",
        "[    2.000000] b",
    ]


def test_torn_line_whose_rest_was_lost() -> None:
    data = b"Begin: Loading drivers ... [    1.000000] a\r\nstart: subiquity/x: \r\n"
    assert [event.line for event in events(data)] == [
        "[    1.000000] a",
        "Begin: Loading drivers ...",
        "start: subiquity/x:",
    ]


def test_torn_prompt_shows_before_its_line_ends() -> None:
    parser = ConsoleParser()
    parser.feed(b"An error occurred. Press enter to start a she[    9.000000] a\r\nll")
    (event,) = parser.peek()
    assert isinstance(event, Prompt)


@pytest.mark.parametrize(
    "data",
    [
        f"prebake-sentinel:installed:{TOKEN}\r\n",
        f"start:  subiquity/Inst\r\nprebake-sentinel:installed:{TOKEN}\r\nall/x\r\n",
        f"start:  subiquity/Instprebake-sentinel:installed:{TOKEN}\r\nall/x: \r\n",
        f"start:  subiquity/Instprebake-sentinel:installed:{TOKEN}\r\n\r\n",
        f"prebake-sentinel:inst[    9.000000] foo\r\nalled:{TOKEN}\r\n",
        f"prebake-sentinel:installed:{TOKEN[:9]}[    9.000000] foo\r\n{TOKEN[9:]}\r\n",
        f"[    9.000000] foo prebake-sentinel:installed:{TOKEN}\r\n",
    ],
)
def test_sentinel_anywhere(data: str) -> None:
    found = [event for event in events(data.encode()) if isinstance(event, Sentinel)]
    assert [(event.kind, event.token) for event in found] == [("installed", TOKEN)]


def test_sentinel_leaves_the_line_it_fell_into_whole() -> None:
    data = f"start:  subiquity/Instprebake-sentinel:failed:{TOKEN}\r\nall/install/configure_apt: go\r\n"
    sentinel, step = events(data.encode())
    assert isinstance(sentinel, Sentinel)
    assert isinstance(step, Step)
    assert step.path == "subiquity/Install/install/configure_apt"


@pytest.mark.parametrize("text", ["prebake-sentinel:installed:", "prebake-sentinel:installed:0123", "x" * 9])
def test_not_a_sentinel(text: str) -> None:
    assert not [event for event in events(text.encode() + b"\n") if isinstance(event, Sentinel)]


def test_too_long_token_is_no_sentinel() -> None:
    assert not [e for e in events(b"prebake-sentinel:failed:" + b"a" * 65 + b"\n") if isinstance(e, Sentinel)]


def test_when_a_line_ended() -> None:
    parser = ConsoleParser()
    assert parser.feed(b"hel", 1.0) == []
    assert parser.feed(b"lo\n", 2.5) == [Output(line="hello", at=2.5)]


SNIPPETS = [
    b"start: subiquity/Meta/status_GET: \r\n",
    b"finish:  subiquity/Late/run/command_0: Command '['sh', '-c', 'x']' returned non-zero exit status 3.\r\n",
    b"  running echo x\r\n",
    b"running early commands\r\n",
    b"connecting...  \x08-\x08\\ \r\n",
    b"[   12.345678] foo\r\n",
    b"[   12.345678] reboot: Power down\r\n",
    b"torn [   12.345678] foo\r\n",
    b"An error occurred. Press enter to start a shell\r\n",
    b"Continue with autoinstall? (yes|no)\r\n",
    b"prebake-sentinel:installed:0123456789abcdef\r\n",
    b"prebake-sentinel:failed:01234567",
    b"demo login: ",
    b"(initramfs) ",
    b"\x1b[0;1;31mFAILED\x1b[0m]",
    b"\x1b[5;3H*Install",
    b"\r\n",
    b"\r",
    b"\xe2\x80\xa6",
]
streams = st.lists(st.one_of(st.sampled_from(SNIPPETS), st.binary(max_size=6)), max_size=30).map(b"".join)


@settings(deadline=None)
@given(streams, st.data())
def test_any_chunks_give_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parser = ConsoleParser()
    found: list[ConsoleEvent] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
        assert parser.peek() == parser.peek()
    assert [*found, *parser.flush()] == events(stream)


@settings(deadline=None)
@given(streams)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    parser = ConsoleParser()
    found = [event for at in range(len(stream)) for event in parser.feed(stream[at : at + 1])]
    assert [*found, *parser.flush()] == events(stream)
