"""The evidence survives whatever is wrong with it, and shows nobody's secrets, however they are written."""

from __future__ import annotations

import io
import json
import random
import tarfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from builder import outcome
from builder.autoinstall.hidden import MASK, masked, secrets
from builder.errors import InstallError
from builder.events import Note
from builder.install import evidence
from builder.install.evidence import unpack_guest_logs
from builder.install.record import CONSOLE
from builder.install.stage import Trace
from builder.spec import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Event


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_a_damaged_archive_gives_what_can_be_read_and_never_an_error(tmp_path: Path) -> None:
    rng = random.Random(5)  # noqa: S311 - the same damage every time
    whole = archive({"var/log/a.log": rng.randbytes(3000), "var/log/b.log": b"b" * 3000})
    refused = 0
    for number in range(300):
        data = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = tmp_path / "logs.tgz"
        path.write_bytes(data)
        folder = tmp_path / str(number)
        unpack_guest_logs(path, folder, ["secret"])
        assert not path.exists()
        refused += (folder / "INCOMPLETE.txt").exists()
    assert refused > 100


def test_names_that_cannot_be_lose_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "logs.tgz"
    bad = {".": b"x", "a": b"x", "a/b": b"x", "n" * 300: b"x", "/etc/passwd": b"x", "../up": b"x"}
    path.write_bytes(archive({**bad, "var/log/good.log": b"good"}))
    names = unpack_guest_logs(path, tmp_path / "guest", [])
    assert names == ["a", "var/log/good.log"]
    assert (tmp_path / "guest/var/log/good.log").read_bytes() == b"good"
    assert "as a whole" in (tmp_path / "guest/INCOMPLETE.txt").read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["guest"]


def test_an_archive_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST", 5000)
    path = tmp_path / "logs.tgz"
    path.write_bytes(archive({f"log-{number}": b"x" * 1000 for number in range(20)}))
    assert len(unpack_guest_logs(path, tmp_path / "guest", [])) == 4


ANSWERS = r"""
storage: {config: [{type: dm_crypt, volume: p, key: "l\"uks 'pass' Grüße"}]}
user-data:
  users: [{name: ann, plain-text-passwd: dashed-one, hashed_passwd: $6$salt$hash}]
  chpasswd: {expire: false, list: "root:rootpw-long\nann:annpw-long"}
  ssh_keys: {rsa_private: "-----BEGIN-----\nAAAABBBBCCCCDDDDEEEE\n-----END-----\n", rsa_public: public}
  write_files: [{path: /etc/x, content: whatever is in it}]
ubuntu-pro: {token: pro-token}
"""


def test_secrets_are_found_under_every_key_that_says_so_and_names_are_none() -> None:
    told = yaml.safe_load(ANSWERS)
    found = set(secrets(told))
    assert {"l\"uks 'pass' Grüße", "dashed-one", "$6$salt$hash", "rootpw-long", "annpw-long", "pro-token"} <= found
    assert "AAAABBBBCCCCDDDDEEEE" in found
    assert not found & {"root", "ann", "public", "False"}
    text = yaml.safe_dump(masked(told, ""))
    assert "root" not in text.replace("rootpw", ""), "accounts and passwords are masked together"
    for each in (*found, "whatever is in it"):
        assert each not in text
    assert MASK in text
    assert "public" in text
    assert "ann" in text


@pytest.mark.parametrize("write", [str, json.dumps, lambda text: json.dumps(text, ensure_ascii=False), repr])
def test_a_secret_is_masked_in_every_spelling(write: Any) -> None:
    secret = "q\"uo'te\\pw Grüße1234"
    line = f"before {write(secret)} after".encode()
    assert b"1234" not in evidence.masked(line, [secret])
    assert b"1234" not in evidence.blotted(line, [secret], "")
    assert len(evidence.blotted(line, [secret], "")) == len(line)


def test_what_cannot_be_written_leaves_the_error_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    logs = work / "result/logs"
    logs.mkdir(parents=True)
    (logs / CONSOLE).write_bytes(b"a console\r\n")
    (work / "disk.qcow2").write_bytes(b"disk")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evidence, "write_report", full)
    heard: list[Event] = []
    job = SimpleNamespace(spec=Spec("x"), keep=False, output=tmp_path)
    story = SimpleNamespace(trace=Trace(), report=heard.append)
    answers = SimpleNamespace(secrets=("hush-hush",), masked=lambda: "masked")
    error = InstallError("it failed: hush-hush", console=["hush-hush"])
    outcome.keep_evidence(cast("Any", job), work, cast("Any", answers), cast("Any", story), error)
    assert (error.message, error.console) == (f"it failed: {MASK}", (MASK,))
    assert error.evidence == tmp_path / "x.failed"
    assert (tmp_path / "x.failed" / CONSOLE).read_bytes() == b"a console\r\n"
    assert (tmp_path / "x.failed/user-data").read_text() == "masked"
    assert any(isinstance(each, Note) and "No space left" in each.text for each in heard)
