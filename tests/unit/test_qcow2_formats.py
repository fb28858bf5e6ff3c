"""What is read from image files and from qemu-img, before and while it is trusted with nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.backends.qcow2.formats import (
    FORMATS,
    INCOMPATIBLE_CORRUPT,
    INCOMPATIBLE_DATA_FILE,
    MAX_VIRTUAL_BYTES,
    QCOW2_MAGIC,
    QCOW2_V2,
    QCOW2_V3,
    VDI_MAGIC,
    VHDX_METADATA_REGION,
    Qcow2Header,
    Refused,
    verify,
)
from vmtui.backends.qcow2.image import ProgressParser
from vmtui.backends.qcow2.rules import about, as_problem, contradictions, rounded, too_small
from vmtui.core.errors import Conflict, MissingCapability, NotPermitted
from vmtui.core.specs import DiskSpec
from vmtui.core.units import Size

FILE_BYTES = 1 << 20


def qcow2(
    *, magic: int = QCOW2_MAGIC, version: int = 3, backing: tuple[int, int] = (0, 0), cluster_bits: int = 16,
    size: int = 1 << 30, crypt: int = 0, l1: tuple[int, int] = (2, 3 << 16), refcounts: int = 1 << 16,
    snapshots: int = 0, incompatible: int = 0,
) -> bytes:  # fmt: skip
    head = QCOW2_V2.pack(magic, version, *backing, cluster_bits, size, crypt, l1[0], l1[1], refcounts, 1, snapshots, 0)
    return head + QCOW2_V3.pack(incompatible, 0, 0, 4, 104)


@contextmanager
def opened(content: bytes, size: int | None = None) -> Iterator[int]:
    fd = os.memfd_create("image")
    try:
        os.write(fd, content)
        if size is not None:
            os.truncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def refusal(content: bytes, image_format: str, size: int | None = None) -> str:
    with opened(content, size) as fd, pytest.raises(Refused) as caught:
        verify(fd, image_format)
    return str(caught.value)


def test_a_sound_qcow2_header_is_read() -> None:
    for version in (2, 3):
        header = Qcow2Header.parse(qcow2(version=version, size=12345 * 512, snapshots=3), FILE_BYTES)
        assert header == Qcow2Header(version, 12345 * 512, 1 << 16, 3, False)
    assert Qcow2Header.parse(qcow2(incompatible=INCOMPATIBLE_CORRUPT), FILE_BYTES).corrupt


def test_the_incompatible_bits_of_version_2_are_something_else() -> None:
    assert Qcow2Header.parse(qcow2(version=2, incompatible=INCOMPATIBLE_DATA_FILE), FILE_BYTES)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (qcow2(magic=0x7F454C46), "not a qcow2"),
        (b"", "not a qcow2"),
        (qcow2()[:71], "not a qcow2"),
        (qcow2()[:80], "cut off"),
        (qcow2(version=1), "version 1"),
        (qcow2(backing=(400, 11)), "backing file"),
        (qcow2(backing=(400, 0)), "backing file"),
        (qcow2(backing=(0, 11)), "backing file"),
        (qcow2(incompatible=INCOMPATIBLE_DATA_FILE), "data file"),
        (qcow2(incompatible=1 << 63), "not known"),
        (qcow2(crypt=2), "encrypted"),
        (qcow2(cluster_bits=8), "damaged"),
        (qcow2(cluster_bits=22), "damaged"),
        (qcow2(l1=((32 << 20) // 8 + 1, 0)), "damaged"),
        (qcow2(l1=(2, FILE_BYTES - 15)), "cut off"),
        (qcow2(l1=(2, (1 << 64) - 8)), "cut off"),
        (qcow2(refcounts=FILE_BYTES), "cut off"),
    ],
)
def test_a_qcow2_header_is_refused(head: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        Qcow2Header.parse(head, FILE_BYTES)


def test_a_foreign_qcow2_has_few_snapshots_and_no_corruption() -> None:
    assert "snapshots" in refusal(qcow2(snapshots=257), "qcow2", FILE_BYTES)
    assert "corrupt" in refusal(qcow2(incompatible=INCOMPATIBLE_CORRUPT), "qcow2", FILE_BYTES)


@given(st.binary(max_size=256), st.integers(0, 1 << 64))
def test_any_bytes_are_a_header_or_are_refused(data: bytes, file_bytes: int) -> None:
    for head in (data, QCOW2_MAGIC.to_bytes(4, "big") + data, qcow2()[:24] + data, qcow2()[: 104 - len(data)] + data):
        try:
            header = Qcow2Header.parse(head, file_bytes)
        except Refused:
            continue
        assert header.version in (2, 3)
        assert 512 <= header.cluster_bytes <= 2 << 20


@given(st.sampled_from(FORMATS), st.binary(max_size=2048), st.integers(0, 300 << 10))
def test_any_bytes_are_verified_without_another_error(image_format: str, data: bytes, size: int) -> None:
    magics = (b"", b"KDMV", b"COWD", b"# Disk DescriptorFile", b"vhdxfile", b"conectix", b"QFI\xfb")
    for magic in magics:
        with opened(magic + data, size) as fd:
            try:
                verify(fd, image_format)
            except Refused:
                continue
            assert size > 0


@given(st.binary(max_size=200), st.integers(0, (1 << 64) - 1))
def test_any_vhdx_regions_are_verified(table: bytes, offset: int) -> None:
    regions = b"regi" + bytes(4) + struct.pack("<II", 2, 0) + VHDX_METADATA_REGION + struct.pack("<QII", offset, 0, 1)
    content = (b"vhdxfile").ljust(192 << 10, b"\0") + regions + table
    with opened(content, 1 << 20) as fd, pytest.raises(Refused):
        verify(fd, "vhdx")


def test_an_empty_file_is_no_image_of_any_format() -> None:
    for image_format in FORMATS:
        assert refusal(b"", image_format) == "it is empty"


def test_raw_is_whatever_it_is() -> None:
    with opened(qcow2(backing=(400, 11))) as fd:
        verify(fd, "raw")


def test_vmdk_files_that_refer_to_others_are_refused() -> None:
    sparse = struct.pack("<4sIIQ", b"KDMV", 1, 3, 2048).ljust(512, b"\0")
    with opened(sparse) as fd:
        verify(fd, "vmdk")
    assert "refers to" in refusal(b'# Disk DescriptorFile\nRW 1 FLAT "/etc/passwd" 0\n', "vmdk")
    assert "refers to" in refusal(struct.pack("<4sIIQ", b"KDMV", 1, 3, 0).ljust(512, b"\0"), "vmdk")
    assert "parent" in refusal(sparse + b'CID=1\nparentFileNameHint="/etc/passwd"\n', "vmdk")
    assert "not a vmdk" in refusal(b'\n# Disk DescriptorFile\nRW 1 FLAT "/etc/passwd" 0\n', "vmdk")


def test_vdi_files_that_refer_to_others_or_are_cut_off_are_refused() -> None:
    def vdi(image_type: int, allocated: int) -> bytes:
        head = bytearray(512)
        struct.pack_into("<I", head, 0x40, VDI_MAGIC)
        struct.pack_into("<I", head, 0x4C, image_type)
        struct.pack_into("<I", head, 0x158, 1024)
        struct.pack_into("<IIII", head, 0x178, 1 << 20, 0, 64, allocated)
        return bytes(head)

    with opened(vdi(1, 2), 1024 + (2 << 20)) as fd:
        verify(fd, "vdi")
    assert "cut off" in refusal(vdi(1, 2), "vdi", 1023 + (2 << 20))
    assert "parent" in refusal(vdi(4, 0), "vdi", 1 << 20)


def test_vpc_files_that_refer_to_others_are_refused() -> None:
    def vpc(disk_type: int) -> bytes:
        return (b"conectix".ljust(60, b"\0") + struct.pack(">I", disk_type)).ljust(512, b"\0")

    for content in (vpc(2), bytes(4096) + vpc(2), vpc(3) + bytes(4096) + vpc(3)):
        with opened(content) as fd:
            verify(fd, "vpc")
    for content in (vpc(4), bytes(4096) + vpc(4), vpc(3) + bytes(4096) + vpc(4)):
        assert "parent" in refusal(content, "vpc")
    assert "not known" in refusal(vpc(99), "vpc")


def test_progress_is_read_in_whatever_pieces_it_comes() -> None:
    parser = ProgressParser()
    assert parser.feed(b"    (0.00/100%)\r    (12.34/1") == 0.0
    assert parser.feed(b"00%)\r") == pytest.approx(0.1234)
    assert parser.feed(b"") is None
    assert parser.feed(b"    (99.00/100%)\r    (100.00/100%)\r\n") == 1.0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.data())
def test_the_last_progress_wins_however_it_is_cut(values: list[float], data: st.DataObject) -> None:
    said = b"".join(f"    ({value:.2f}/100%)\r".encode() for value in values)
    parser, heard, at = ProgressParser(), [], 0
    while at < len(said):
        size = data.draw(st.integers(1, len(said) - at))
        heard.append(parser.feed(said[at : at + size]))
        at += size
    assert [fraction for fraction in heard if fraction is not None][-1] == pytest.approx(round(values[-1], 2) / 100)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_output_gives_a_fraction_or_nothing_and_is_not_hoarded(chunks: list[bytes]) -> None:
    parser = ProgressParser()
    for chunk in chunks:
        fraction = parser.feed(chunk)
        assert fraction is None or 0 <= fraction <= 1
        assert len(parser._tail) <= 32


@given(st.integers(1, MAX_VIRTUAL_BYTES))
def test_sizes_are_rounded_up_to_sectors(size: int) -> None:
    assert rounded(size) % 512 == 0
    assert 0 <= rounded(size) - size < 512


def test_sizes_that_are_compared_are_short() -> None:
    sizes = (0, 1023, 1024, 82683648 << 10, 1 << 60)
    assert [about(size) for size in sizes] == ["0.0B", "1023.0B", "1.0KiB", "78.9GiB", "1048576.0TiB"]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (DiskSpec(), "size or a source"),
        (DiskSpec(size=Size(0)), "1 byte to"),
        (DiskSpec(size=Size(MAX_VIRTUAL_BYTES + 1)), "1 byte to 2048TiB"),
        (DiskSpec(source="/x"), "source_format is missing"),
        (DiskSpec(source="/x", source_format="iso"), "'iso' is not a known"),
        (DiskSpec(source="x", source_format="raw"), "absolute"),
        (DiskSpec(source="nbd:localhost:10809", source_format="raw"), "absolute"),
        (DiskSpec(source="json:{}", source_format="raw"), "absolute"),
    ],
)
def test_a_spec_that_contradicts_itself(spec: DiskSpec, word: str) -> None:
    (fault,) = contradictions(spec)
    assert word in fault.message


def test_sound_specs() -> None:
    for spec in (DiskSpec(size=Size(1)), DiskSpec(source="/x", source_format="raw", size=Size(MAX_VIRTUAL_BYTES))):
        assert not list(contradictions(spec))


def test_problems_carry_the_words_that_the_engine_maps_to_errors() -> None:
    assert as_problem(MissingCapability("x", hint="y")).code == "missing-capability"
    assert as_problem(Conflict("x")).code == "conflict"
    assert as_problem(FileNotFoundError(2, "No such file or directory")).message == "no such file or directory"
    refused = too_small("/a.raw", Size(1 << 20), 2 << 20)
    assert isinstance(refused, NotPermitted)
    assert "shrink = true" in refused.hint


def test_every_format_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/backends/qcow2.md").read_text()
    assert all(image_format in text for image_format in FORMATS)
