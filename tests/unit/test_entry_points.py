"""Entry points are found as importlib.metadata finds them."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from vmtui.engine.entry_points import EntryPoint, of_group

NAME = "vmtui.test-group"


def known(group: str) -> list[tuple[str, str]]:
    return sorted((entry.name, entry.value) for entry in metadata.entry_points(group=group))


def install(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(text)


@pytest.mark.parametrize("group", ["vmtui.backend", "console_scripts", "pytest11", "no.such.group"])
def test_of_all_that_is_installed(group: str) -> None:
    assert sorted(of_group(group)) == known(group)


def test_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "a", "some_thing", f"[other]\nx = y:z\n\n[{NAME}]\n# comment\none = os.path:join\n")
    install(tmp_path / "b", "Some.Thing", f"[{NAME}]\none = os.path:split\n")
    install(tmp_path / "b", "another", f"[{NAME}]\ntwo = os:path.dirname [extra]\nthree = json\n")
    (tmp_path / "b" / "damaged-1.dist-info").mkdir()
    (tmp_path / "b" / "damaged-1.dist-info" / "entry_points.txt").write_bytes(b"\xff[" + NAME.encode() + b"]\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "gone"), str(tmp_path / "b"), *sys.path])
    found = {entry.name: entry for entry in of_group(NAME)}
    assert set(found) == {"one", "two", "three"}
    assert found["one"].load() is os.path.join
    assert found["two"].load() is os.path.dirname
    import json

    assert found["three"].load() is json


def test_in_an_archive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("zipped-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 1.0\n")
        archive.writestr("zipped-1.0.dist-info/entry_points.txt", f"[{NAME}]\none = os.path:join\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "some.zip")])
    assert of_group(NAME) == [EntryPoint("one", "os.path:join")]


def test_of_a_finder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> None:
            return None

        @staticmethod
        def find_distributions(context: metadata.DistributionFinder.Context) -> list[metadata.Distribution]:
            return [metadata.PathDistribution(tmp_path / "found-1.0.dist-info")]

    install(tmp_path, "found", f"[{NAME}]\none = os.path:join\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert of_group(NAME) == [EntryPoint("one", "os.path:join")]
