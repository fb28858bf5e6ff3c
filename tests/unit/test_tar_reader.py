"""The tar reader agrees with tarfile on sound archives, and ends with TarError on all others."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.oci import Item, make_tar
from vmtui.runtime import tar


def read(data: bytes) -> list[tuple[tar.Entry, bytes]]:
    reader = tar.Reader(io.BytesIO(data).read)
    return [(entry, b"".join(reader.body())) for entry in reader]


NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=120)


@given(
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4), st.binary(max_size=2000)), max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(0, (1 << 32) - 2),
)
def test_sound_archives_read_as_tarfile_wrote_them(
    files: list[tuple[list[str], bytes]], tar_format: int, owner: int
) -> None:
    entries = [("/".join(names), Item(data=data, uid=owner, gid=owner // 2)) for names, data in files]
    found = read(make_tar(entries, tar_format=tar_format))
    assert [(entry.name.decode(), body) for entry, body in found] == [(name, item.data) for name, item in entries]
    assert all((entry.uid, entry.gid, entry.mode) == (owner, owner // 2, 0o644) for entry, _ in found)


def test_every_kind_of_entry() -> None:
    entries = [
        ("d", Item(kind=tarfile.DIRTYPE, mode=0o1777)),
        ("s", Item(kind=tarfile.SYMTYPE, link="x" * 150)),
        ("h", Item(kind=tarfile.LNKTYPE, link="d/" + "y" * 150)),
        ("c", Item(kind=tarfile.CHRTYPE, device=(5, 1))),
        ("b", Item(kind=tarfile.BLKTYPE, device=(8, 300))),
        ("p", Item(kind=tarfile.FIFOTYPE)),
        ("x", Item(data=b"1", mtime=1.5, pax={"SCHILY.xattr.user.a": "b"})),
    ]
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        found = {entry.name: entry for entry, _ in read(make_tar(entries, tar_format=tar_format))}
        assert found[b"s"].link == b"x" * 150
        assert found[b"h"].link == b"d/" + b"y" * 150
        assert (found[b"c"].device, found[b"b"].device) == ((5, 1), (8, 300))
        assert found[b"d/"].mode == 0o1777
    pax = {entry.name: entry for entry, _ in read(make_tar(entries))}
    assert pax[b"x"].mtime_ns == 1_500_000_000
    assert pax[b"x"].xattrs == {b"user.a": b"b"}


def test_old_archives_mark_a_folder_by_a_slash() -> None:
    data = bytearray(make_tar({"old/": b""}, tar_format=tarfile.USTAR_FORMAT))
    data[156:157] = b"\0"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert read(bytes(data))[0][0].kind == tar.DIRECTORY


def test_an_archive_may_end_without_a_mark() -> None:
    assert [entry.name for entry, _ in read(make_tar({"a": b"x"})[:1024])] == [b"a"]


def patched(offset: int, value: bytes, name: str = "a", **item: object) -> bytes:
    """An archive of one entry whose header has other bytes at `offset`, under a right checksum."""
    data = bytearray(make_tar({name: Item(**item)}, tar_format=tarfile.USTAR_FORMAT))  # type: ignore[arg-type]
    data[offset : offset + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def pax(records: bytes) -> bytes:
    header = bytearray(make_tar({"pax": Item(data=records)}, tar_format=tarfile.USTAR_FORMAT)[:512])
    header[156:157] = b"x"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + records + bytes(-len(records) % 512) + make_tar({"a": b"1"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_tar({"a": b"x" * 600})[:1000], "truncated"),
        (make_tar({"a": b"x" * 600})[:100], "truncated"),
        (b"\1" * 512, "checksum"),
        (bytes(512) + make_tar({"a": b""}), "lone zero block"),
        (patched(156, b"S"), "sparse"),
        (patched(156, b"V"), "unknown type"),
        (patched(124, b"89999999999\0"), "not a number"),
        (patched(124, b"\x80" + b"\xff" * 11), "out of range"),
        (patched(124, b"\xff" * 12), "out of range"),
        (patched(100, b"-000644\0"), "not a number"),
        (pax(b"999 path=x\n"), "malformed"),
        (pax(b"0 path=x\n"), "malformed"),
        (pax(b"10 pathxx\n"), "malformed"),
        (pax(b"\xff\xff"), "malformed"),
        (pax(b"12 size=1.5\n"), "out of range"),
        (pax(b"11 size=-1\n"), "out of range"),
        (pax(b"14 size=1e100\n"), "not a number"),
        (pax(b"16 path=ab\0cdef\n"), "not a path"),
        (pax(b"22 GNU.sparse.major=1\n"), "sparse"),
        (pax(b"5010 path=" + b"x" * 4999 + b"\n"), "not a path"),
        (patched(124, b"77777777777\0", name="x"), "truncated"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(tar.TarError, match=message):
        read(data)


def test_extension_headers_are_bounded() -> None:
    for kind, size in ((b"x", tar.MAX_PAX_BYTES + 1), (b"L", 8000), (b"K", 8000), (b"g", tar.MAX_PAX_BYTES + 1)):
        header = bytearray(patched(124, b"%011o\0" % size))
        header[156:157] = kind
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
        with pytest.raises(tar.TarError, match="longer than"):
            read(bytes(header) + bytes(2 << 20))


SOUND = make_tar([("a/b", b"x" * 700), ("l", ("symlink", "a")), ("n" * 200, b"1"), ("p", Item(pax={"comment": "c"}))])


@given(st.binary(max_size=3000))
@example(SOUND)
def test_any_bytes_end(data: bytes) -> None:
    try:
        read(data)
    except tar.TarError as error:
        assert str(error).isprintable()  # noqa: PT017


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=8), st.booleans())
def test_any_damage_ends(changes: list[tuple[int, int]], mend: bool) -> None:
    data = bytearray(SOUND)
    for offset, value in changes:
        data[offset] = value
        if mend:
            start = offset // 512 * 512
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    with contextlib.suppress(tar.TarError):
        read(bytes(data))
