"""GRUB menus, edited text to text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import RemasterError
from builder.media.grub import SerialPort, boots_casper, edit_menu
from tests.isofixture import GRUB_2204, GRUB_2604, GRUB_ARM64, LOOPBACK

ARGUMENTS = ("autoinstall", "ds=nocloud;s=/cdrom/nocloud/", "console=tty0", "console=ttyS0,115200n8")
ADDED = 'autoinstall "ds=nocloud;s=/cdrom/nocloud/" console=tty0 console=ttyS0,115200n8'
SERIAL = """\
if [ "$grub_platform" = "pc" ]; then
  if serial --unit=0 --speed=115200; then
    terminal_input --append serial
    terminal_output --append serial
  fi
fi
"""


def edited(text: str, *arguments: str, serial: SerialPort | None = None, timeout: int = 5) -> str:
    return edit_menu(text, kernel_arguments=arguments or ARGUMENTS, serial=serial, timeout=timeout)


def body(text: str) -> str:
    return text.split("# prebake: end\n", 1)[1]


def test_2204_and_2404_whole_text() -> None:
    expected = GRUB_2204.replace("timeout=30", "timeout=5").replace("  ---", f"  {ADDED} ---")
    head = f"# prebake: begin\n# prebake: added: {ADDED}\n{SERIAL}# prebake: end\n"
    assert edited(GRUB_2204, serial=SerialPort()) == head + expected


def test_2604_whole_text() -> None:
    expected = GRUB_2604.replace("timeout=30", "timeout=5").replace("  ---", f"  {ADDED} ---")
    assert edited(GRUB_2604) == f"# prebake: begin\n# prebake: added: {ADDED}\n# prebake: end\n{expected}"


def test_arm64_keeps_what_follows_the_separator() -> None:
    assert f"linux /casper/vmlinuz $cmdline  {ADDED} ---  console=tty0\n" in edited(GRUB_ARM64)


def test_loopback_keeps_its_variable_and_gets_a_timeout() -> None:
    text = edited(LOOPBACK)
    assert text.count(f"iso-scan/filename=${{iso_path}} {ADDED} ---\n") == 2
    assert text.startswith(f"# prebake: begin\n# prebake: added: {ADDED}\nset timeout=5\n")


def test_other_entries_are_untouched() -> None:
    text = edited(GRUB_2204 + 'menuentry "next" {\n\tchainloader /EFI/x.efi\n\tlinux /boot/other ---\n}\n')
    assert "\tlinux16 /boot/memtest86+.bin\n" in text
    assert "\tchainloader /EFI/x.efi\n\tlinux /boot/other ---\n" in text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("linux /casper/vmlinuz ---", "linux /casper/vmlinuz X ---"),
        ("linux /casper/vmlinuz --- quiet", "linux /casper/vmlinuz X --- quiet"),
        ("linux\t/casper/vmlinuz\tquiet \t ---\tsplash", "linux\t/casper/vmlinuz\tquiet \t X ---\tsplash"),
        ("linux /casper/vmlinuz", "linux /casper/vmlinuz X"),
        ("linux /casper/vmlinuz quiet  ", "linux /casper/vmlinuz quiet X  "),
        ("linux /casper/vmlinuz a---b ----", "linux /casper/vmlinuz a---b ---- X"),
        ("linuxefi /casper/vmlinuz.efi ---", "linuxefi /casper/vmlinuz.efi X ---"),
        ("linux16 (loop)/casper/vmlinuz ---", "linux16 (loop)/casper/vmlinuz X ---"),
        ('linux "${root}/casper/vmlinuz" ---', 'linux "${root}/casper/vmlinuz" X ---'),
        ("linux /casper/vmlinuz ---\r", "linux /casper/vmlinuz X ---\r"),
        ("linux /casper/vmlinuz quiet \\\n  splash ---", "linux /casper/vmlinuz quiet \\\n  splash X ---"),
        ("linux /casper/vmlinuz quiet # no ---", "linux /casper/vmlinuz quiet X # no ---"),
        ('linux /casper/vmlinuz "a;b --- c" ---', 'linux /casper/vmlinuz "a;b --- c" X ---'),
        (
            'menuentry "m" { linux /casper/vmlinuz ---; initrd /casper/initrd; }',
            'menuentry "m" { linux /casper/vmlinuz X ---; initrd /casper/initrd; }',
        ),
        ("if true; then linux /casper/vmlinuz ---; fi", "if true; then linux /casper/vmlinuz X ---; fi"),
        ("# linux /casper/vmlinuz ---", "# linux /casper/vmlinuz ---"),
        ("echo linux /casper/vmlinuz ---", "echo linux /casper/vmlinuz ---"),
        ("linux /boot/vmlinuz root=/casper/x ---", "linux /boot/vmlinuz root=/casper/x ---"),
    ],
)
def test_where_arguments_go(before: str, after: str) -> None:
    assert body(edited(before, "X")) == after
    assert boots_casper(before) == (before != after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("set timeout=30\n", "set timeout=5\n"),
        ('\tset timeout="30"; true\n', "\tset timeout=5; true\n"),
        ("timeout=-1\n", "timeout=5\n"),
        ("if x; then set timeout=1; else set timeout=2; fi\n", "if x; then set timeout=5; else set timeout=5; fi\n"),
        ("set timeout_style=menu\necho timeout=3\n", "set timeout_style=menu\necho timeout=3\n"),
    ],
)
def test_timeout(before: str, after: str) -> None:
    text = edited(before)
    assert body(text) == after
    assert ("set timeout=5\n" in text.split("# prebake: end")[0]) == (before == after)


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("a=b,c:/d@1", "a=b,c:/d@1"),
        ("a b", '"a b"'),
        ('a"b$c\\', r'"a\"b\$c\\"'),
        ("x;y", '"x;y"'),
        ("it's", '"it\'s"'),
    ],
)
def test_quoting(argument: str, word: str) -> None:
    assert body(edited("linux /casper/vmlinuz ---", argument)) == f"linux /casper/vmlinuz {word} ---"


@pytest.mark.parametrize("argument", ["", "---", "a\nb", "a\rb", "a\0b"])
def test_impossible_arguments_are_refused(argument: str) -> None:
    with pytest.raises(RemasterError, match="cannot be a kernel argument"):
        edited(GRUB_2204, argument)


SEEDS = [
    '"ds=nocloud;s=/cdrom/server/"',
    "'ds=nocloud;s=/cdrom/server/'",
    r"ds=nocloud\;s=/cdrom/server/",
    'ds="nocloud;s=/cdrom/server/"',
    "ds='nocloud;s=/cdrom/server/'",
    'ds=nocloud";"s=/cdrom/server/',
    r'"ds=nocloud-net\;s=http://10.0.2.2/"',
    "ds=nocloud;s=/cdrom/server/",  # GRUB ends the command there
    "ds=nocloud",
    "ci.ds=NoCloud",
    "ci.datasource=None",
    "subiquity.autoinstallpath=/cdrom/autoinstall.yaml",
    "cloud-config-url=http://example.com/x",
    "cloud-init=disabled",
    "url=http://example.com/x",  # cloud-init's older name, and casper's for another medium
    "iso-url=http://example.com/x.iso",
    '"cc:autoinstall: {version: 1} end_cc"',
    "'cc: {runcmd: [[reboot]]} end_cc'",
    "cc:ssh_import_id: [somebody] end_cc",
    "cc: users: [default]\\\\nruncmd: [ls] end_cc cc:bootcmd: [ls] end_cc",
]


@pytest.mark.parametrize("seed", SEEDS)
def test_arguments_that_lead_to_other_answers_go(seed: str) -> None:
    before = f"menuentry x {{\n\tlinux\t/casper/vmlinuz quiet autoinstall {seed}  ---\n\tinitrd /casper/initrd\n}}\n"
    after = f"menuentry x {{\n\tlinux\t/casper/vmlinuz quiet  {ADDED} ---\n\tinitrd /casper/initrd\n}}\n"
    assert body(edited(before)) == after
    swapped = before.replace(f"autoinstall {seed}", f"{seed} autoinstall")
    assert body(edited(swapped)) == after


@pytest.mark.parametrize("seed", SEEDS)
def test_they_go_behind_the_separator_too_and_without_one(seed: str) -> None:
    assert body(edited(f"linux /casper/vmlinuz --- quiet autoinstall {seed}")) == (
        f"linux /casper/vmlinuz {ADDED} --- quiet"
    )
    assert body(edited(f"linux /casper/vmlinuz autoinstall {seed}")) == f"linux /casper/vmlinuz {ADDED}"
    assert body(edited(f"linux /casper/vmlinuz autoinstall {seed}; boot")) == f"linux /casper/vmlinuz {ADDED}; boot"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('set opts="autoinstall ds=nocloud;s=/cdrom/theirs/"', 'set opts=""'),
        ("set opts='quiet autoinstall  ds=nocloud;s=/cdrom/theirs/ splash'", "set opts='quiet splash'"),
        (r"opts=autoinstall\ ds=nocloud\;s=/x/\ quiet", "opts=quiet"),
        ('set "opts=ds=nocloud;s=/x/ quiet"', 'set "opts=quiet"'),
        ('set opts="auto"install" quiet"', 'set opts="""quiet"'),
        ("set opts=ds=nocloud;s=/cdrom/theirs/", "set opts=;s=/cdrom/theirs/"),
        ('set opts="cc: autoinstall: {version: 1} end_cc a=b"', 'set opts="a=b"'),
        ('opts=quiet; if x; then set opts="$opts autoinstall"; fi', 'opts=quiet; if x; then set opts="$opts"; fi'),
        ('set seed="ds=nocloud;s=$where"; set opts="a=b ${seed}"', 'set seed=""; set opts="a=b ${seed}"'),
        ("for opts in autoinstall 'quiet url=http://x/'; do true; done", "for opts in \"\" 'quiet'; do true; done"),
        ('set opts="autoinstall #x"', 'set opts="#x"'),
        ("set ds='nocloud autoinstall'; set opts=$ds", "set ds='nocloud'; set opts=$ds"),
    ],
)
@pytest.mark.parametrize("use", ["$opts", "${opts}", '"$opts"', 'a=b"${opts}"'])
def test_they_go_from_what_variables_on_kernel_lines_hold(before: str, after: str, use: str) -> None:
    line = f"linux /casper/vmlinuz {use} ---"
    assert body(edited(f"{before}\n{line}\n")) == f"{after}\nlinux /casper/vmlinuz {use} {ADDED} ---\n"


@pytest.mark.parametrize("use", ["$1", '"${2}"', '"$@"', "$*"])
def test_they_go_from_what_functions_and_entries_are_given(use: str) -> None:
    before = (
        f"function boot {{\n\tlinux /casper/vmlinuz {use} ---\n}}\n"
        "menuentry 'no autoinstall' { boot quiet autoinstall 'ds=nocloud;s=/x/'; }\n"
        f"menuentry autoinstall 'a autoinstall' {{ linux /casper/vmlinuz {use} ---; }}\n"
    )
    after = (
        f"function boot {{\n\tlinux /casper/vmlinuz {use} X ---\n}}\n"
        "menuentry 'no autoinstall' { boot quiet \"\" ''; }\n"
        f"menuentry autoinstall 'a' {{ linux /casper/vmlinuz {use} X ---; }}\n"
    )
    assert body(edited(before, "X")) == after


def test_a_kernel_line_may_give_its_own_words() -> None:
    before = "function linux {\n\techo $1\n}\nlinux /casper/vmlinuz autoinstall 'a autoinstall' $1 ---\n"
    after = "function linux {\n\techo $1\n}\nlinux /casper/vmlinuz 'a' $1 X ---\n"
    assert body(edited(before, "X")) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("'quiet autoinstall' a", "'quiet' a"),
        ('"autoinstall quiet ds=nocloud;s=/x/"', '"quiet"'),
        (r"quiet\ autoinstall\ #x", r"quiet\ #x"),
        (r"a=b\ cc:x\ y\ end_cc", "a=b"),
    ],
)
def test_they_go_from_within_a_word(before: str, after: str) -> None:
    assert body(edited(f"linux /casper/vmlinuz {before} ---", "X")) == f"linux /casper/vmlinuz {after} X ---"


@pytest.mark.parametrize(
    "text",
    [
        "set opts=autoinstall\nlinux /casper/vmlinuz '$opts' \\$opts $option ---",
        "set opts=autoinstall\nlinux /boot/vmlinuz $opts ---",
        "function f { linux /boot/x $1; }\nf autoinstall\nlinux /casper/vmlinuz $x ---",
        GRUB_ARM64.replace("pd_ignore_unused", "ads=x --- autoinstall.x"),
    ],
)
def test_what_no_kernel_line_of_ours_gets_stays(text: str) -> None:
    menu = body(edited(text, "X"))
    assert menu.replace("X ", "").replace("timeout=5", "timeout=30") == text


def test_settings_without_an_end_leave_what_the_kernel_needs() -> None:
    before = "linux /casper/vmlinuz cc:autoinstall: [x] iso-scan/filename=${iso_path} --- quiet"
    after = "linux /casper/vmlinuz [x] iso-scan/filename=${iso_path} X --- quiet"
    assert body(edited(before, "X")) == after
    assert body(edited("linux /casper/vmlinuz cc:x --- quiet end_cc", "X")) == "linux /casper/vmlinuz X ---"


def test_an_argument_of_ours_is_not_there_twice() -> None:
    before = "linux /casper/vmlinuz console=ttyS0,115200n8 console=ttyS1 console=tty0 autoinstall ---\n"
    assert body(edited(before)) == f"linux /casper/vmlinuz console=ttyS1 {ADDED} ---\n"


@pytest.mark.parametrize(
    "line",
    [
        "linux /boot/vmlinuz autoinstall ds=nocloud ---",
        "linux /casper/vmlinuz noautoinstall xds=nocloud autoinstall.x adds=1 --- ads=1",
        "set x=autoinstall; ds=nocloud",
        "linux /casper/vmlinuz a=b;s=/cdrom/x ---",
        "linux /casper/vmlinuz curl=x urls=y BOOTIF=01-aa-bb-cc:dd cc=1 end_cc ---",
    ],
)
def test_what_only_looks_like_them_stays(line: str) -> None:
    text = body(edited(line, "X"))
    assert text.replace("X ", "").replace(" X", "") == line


def test_no_arguments_add_none() -> None:
    text = edit_menu(GRUB_2204, kernel_arguments=(), serial=None, timeout=30)
    assert text == f"# prebake: begin\n# prebake: end\n{GRUB_2204}"


MENUS = st.sampled_from([GRUB_2204, GRUB_2604, GRUB_ARM64, LOOPBACK])
PIECES = st.sampled_from(
    [
        "linux",
        "linux16",
        " ",
        "\t",
        "\n",
        ";",
        "{",
        "}",
        "---",
        " --- ",
        "/casper/vmlinuz",
        "set",
        "timeout=3",
        "quiet",
        "'",
        '"',
        "\\",
        "\\\n",
        "#",
        "$x",
        "${x}",
        "\r\n",
        "if",
        "then",
        "linux /casper/vmlinuz",
        "console=tty0",
        " autoinstall ",
        "ds=nocloud;s=/x/",
        '"ds=nocloud;s=/x/"',
        "x=autoinstall",
        'set x="quiet autoinstall',
        "for x in autoinstall ",
        "function f",
        "f ",
        " $1 ",
        "\\ ",
        " cc:",
        "end_cc ",
    ]
)
SCRIPTS = MENUS | st.lists(PIECES, max_size=25).map("".join)
WORDS = st.lists(
    st.text(st.characters(exclude_characters="\n\r\0", codec="utf-8"), min_size=1, max_size=8).filter(
        lambda word: word not in {"---", "quiet", "linux", "linux16", "set", "timeout=3", "$x", "${x}"}
    ),
    max_size=4,
)


@given(SCRIPTS, WORDS, WORDS)
def test_an_edited_menu_is_replaced_never_doubled(text: str, first: list[str], second: list[str]) -> None:
    port = SerialPort(1, 9600)
    once = edit_menu(text, kernel_arguments=second, serial=None, timeout=3)
    twice = edit_menu(
        edit_menu(text, kernel_arguments=first, serial=port, timeout=8), kernel_arguments=second, serial=None, timeout=3
    )
    assert twice == once
    assert edit_menu(once, kernel_arguments=second, serial=None, timeout=3) == once


@given(MENUS, WORDS)
def test_only_kernel_lines_and_timeouts_change(text: str, arguments: list[str]) -> None:
    result = body(edit_menu(text, kernel_arguments=arguments, serial=SerialPort(), timeout=7))
    for old, new in zip(text.split("\n"), result.split("\n"), strict=True):
        if old != new:
            assert re.search(r"linux\s+/casper/|timeout=", old)
