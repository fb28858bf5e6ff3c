"""Image references in their full form."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.core.errors import Fault, InvalidInput, NotFound
from vmtui.runtime.reference import TRANSPORTS, parse, require_local

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("nginx", "docker://docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker://docker.io/library/nginx:1.25"),
        ("user/app", "docker://docker.io/user/app:latest"),
        ("user_x/app", "docker://docker.io/user_x/app:latest"),
        ("index.docker.io/nginx", "docker://docker.io/library/nginx:latest"),
        ("ghcr.io/org/app:2", "docker://ghcr.io/org/app:2"),
        ("localhost/app", "docker://localhost/app:latest"),
        ("127.0.0.1:5000/app", "docker://127.0.0.1:5000/app:latest"),
        ("[::1]:5000/a/b:c", "docker://[::1]:5000/a/b:c"),
        ("docker://quay.io/a/b", "docker://quay.io/a/b:latest"),
        (f"nginx@{DIGEST}", f"docker://docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1.25@{DIGEST}", f"docker://docker.io/library/nginx@{DIGEST}"),
        ("oci:/srv/image:v1", "oci:/srv/image:v1"),
        ("dir:/srv/a:b", "dir:/srv/a:b"),
        ("oci-archive:/srv/a.tar", "oci-archive:/srv/a.tar"),
        ("docker-archive:/srv/a.tar:app:1", "docker-archive:/srv/a.tar:app:1"),
        ("docker-daemon:app:1", "docker-daemon:app:1"),
        ("containers-storage:app:1", "containers-storage:app:1"),
        ("deb:busybox-static", "deb:busybox-static"),
    ],
)
def test_the_full_form(written: str, full: str) -> None:
    assert str(parse(written)) == full
    assert str(parse(full)) == full


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(parse("oci:image:v1")) == f"oci:{tmp_path}/image:v1"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "  ",
        "oci:",
        "deb:",
        "ftp://host/x",
        "tarball:/x",
        "Upper",
        "a b",
        "a\nb",
        "-x",
        "--help",
        "docker://",
        "a//b",
    ],
)
def test_what_is_not_a_reference_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(wrong)
    assert caught.value.message


def test_an_unknown_transport_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="unknown transport 'ftp'") as caught:
        parse("ftp://host/x")
    assert all(f"{transport}:" in caught.value.hint for transport in TRANSPORTS)


@pytest.mark.parametrize(
    ("reference", "loopback"),
    [
        ("127.0.0.1:5000/a", True),
        ("127.3.2.1/a", True),
        ("localhost:5000/a", True),
        ("[::1]:5000/a", True),
        ("127.0.0.1.example.org/a", False),
        ("localhost.example.org/a", False),
        ("10.0.0.1:5000/a", False),
        ("nginx", False),
        ("oci:/localhost", False),
    ],
)
def test_only_this_machine_may_do_without_tls(reference: str, loopback: bool) -> None:
    assert parse(reference).is_loopback is loopback


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=f"no such file or folder: {tmp_path}/none"):
        require_local(parse(f"oci:{tmp_path}/none:latest"))
    with pytest.raises(InvalidInput, match="is not a file"):
        require_local(parse(f"oci-archive:{tmp_path}"))
    with pytest.raises(InvalidInput, match="is not a file"):
        require_local(parse("docker-archive:/dev/zero"))
    with pytest.raises(InvalidInput, match="is not a folder"):
        require_local(parse("oci:/dev/null:latest"))
    require_local(parse("nginx"))


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_a_fault(text: str) -> None:
    try:
        reference = parse(text)
    except Fault:
        return
    assert reference.transport in TRANSPORTS
    assert not str(reference).startswith("-")
    assert parse(str(reference)) == reference
