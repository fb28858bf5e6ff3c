"""The table [serve.web]: each fault is told with its line and its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmtui.core.errors import FileInvalid
from vmtui.core.units import Duration
from vmtui.profile.serving import WebSettings
from vmtui.ssh import settings


def read(folder: Path, lines: str) -> WebSettings:
    path = folder / "serve.toml"
    path.write_text(f"[serve.web]\n{lines}\n")
    return settings.read(path)[0].web


def test_without_a_table_it_is_for_this_host_alone() -> None:
    web = WebSettings()
    assert (web.listen, web.names, web.tls, web.token_lifetime) == ("127.0.0.1:8022", (), None, Duration(60))


def test_all_keys_are_read(tmp_path: Path) -> None:
    web = read(
        tmp_path,
        'listen = "[::]:443"\nnames = ["console.example", "box"]\ntls = true\ncertificate = "c.pem"\nkey = "k.pem"\n'
        'token_lifetime = "2m"\nlogin_lifetime = "1h"\nsessions = 2\nconnections = 10',
    )
    assert web == WebSettings(
        listen="[::]:443",
        names=("console.example", "box"),
        tls=True,
        certificate="c.pem",
        key="k.pem",
        token_lifetime=Duration(120),
        login_lifetime=Duration(3600),
        sessions=2,
        connections=10,
    )


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        ('listen = "box:80"', 2, "serve.web.listen: 'box:80' is not an address to listen on"),
        ('names = [\n"box",\n"a b",\n]', 4, "serve.web.names[1]: 'a b' is not the name of a host"),
        ('names = ["http://a.example"]', 2, "serve.web.names[0]: 'http://a.example' is not the name of a host"),
        ('names = ["a.example:80"]', 2, "is not the name of a host"),
        ('names = ["ä.example"]', 2, "is not the name of a host"),
        ('names = [""]', 2, "is not the name of a host"),
        (f'names = ["{"a" * 254}"]', 2, "is not the name of a host"),
        ('key = "k.pem"', 2, "serve.web.key: certificate and key go together"),
        ('\ncertificate = "c.pem"', 3, "serve.web.certificate: certificate and key go together"),
        ("sessions = 0", 2, "serve.web.sessions: "),
        ('tls = "yes"', 2, "serve.web.tls: "),
        ('token_lifetime = "soon"', 2, "serve.web.token_lifetime: "),
        ('password = "x"', 2, "serve.web.password: unknown key"),
    ],
)
def test_a_fault_has_its_line_and_key(tmp_path: Path, lines: str, line: int, says: str) -> None:
    with pytest.raises(FileInvalid) as fault:
        read(tmp_path, lines)
    assert fault.value.where.endswith(f"serve.toml:{line}")
    assert says in str(fault.value)
