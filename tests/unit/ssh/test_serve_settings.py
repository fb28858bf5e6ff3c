"""The table [serve]: defaults, what is read of it, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtui.core.errors import ServeInvalid
from vmtui.core.policy import BUILTIN
from vmtui.core.units import Duration
from vmtui.profile.serving import Serve
from vmtui.ssh import settings


def written(folder: Path, text: str) -> Path:
    path = folder / "serve.toml"
    path.write_text(text)
    return path


def test_without_a_file_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    assert settings.read(tmp_path / "serve.toml") == (Serve(), BUILTIN)
    assert Serve().listen == ("127.0.0.1:2222",)
    assert Serve().login_timeout == Duration(15)
    with pytest.raises(ServeInvalid, match="no such file"):
        settings.read(tmp_path / "serve.toml", must_exist=True)


def test_what_is_written_is_read_and_roles_are_left_to_others(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[serve]\nlisten = ["[::1]:22"]\nkeepalive = "1m"\n[serve.web]\nnames = ["box"]\n[role.x]\nabout = "y"\n',
    )
    found, _ = settings.read(path)
    assert found.listen == ("[::1]:22",)
    assert found.keepalive == Duration(60)
    assert found.web.names == ("box",)


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ('[serve]\n\nlissten = ["127.0.0.1:1"]\n', 3, "serve.lissten: unknown key"),
        ("[serve]\nconnections = 0\n", 2, "serve.connections: "),
        (
            '[serve]\nlisten = [\n "127.0.0.1:2222",\n "box:2222",\n]\n',
            4,
            "serve.listen[1]: 'box:2222' is not an address",
        ),
        ("[serve]\nlisten = []\n", 2, "serve.listen: there must be an address"),
        ('[serve]\nkeepalive = "soon"\n', 2, "serve.keepalive: "),
        ('[serve.web]\ncert = "x"\n', 2, "serve.web.cert: unknown key"),
        ("[sreve]\n", 1, "sreve: unknown table"),
        ("serve = 1\n", 1, "serve: expected"),
        ("[serve\n", 1, "not TOML"),
    ],
)
def test_a_wrong_key_is_named_with_its_line(tmp_path: Path, text: str, where: int, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ServeInvalid) as caught:
        settings.read(path)
    assert caught.value.where == f"{path}:{where}"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:2222", ("127.0.0.1", 2222)),
        ("0.0.0.0", ("0.0.0.0", 2222)),
        ("*:22", ("0.0.0.0", 22)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("2200", ("127.0.0.1", 2200)),
        ("[::]:2222", ("::", 2222)),
        ("::1", ("::1", 2222)),
        ("[fe80::1%eth0]:22", ("fe80::1%eth0", 22)),
    ],
)
def test_addresses_to_listen_at(text: str, found: tuple[str, int]) -> None:
    assert settings.address(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "box:22",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:\N{FULLWIDTH DIGIT TWO}",
        "1.2.3:4",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        settings.address(text)
