"""What an installed vmtui has, as opposed to a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from vmtui.host.paths import data_dir
import vmtui
print(vmtui.__file__)
print(*sorted(file.name for name in ("profiles", "themes") for file in data_dir(name).iterdir()))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(argv, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_themes_profiles_and_guest_files_travel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "vmtui/_data/profiles/dev.toml",
        "vmtui/_data/profiles/hello.wat",
        "vmtui/_data/themes/vmtui-dark.toml",
        "vmtui/guests/guest/init",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_an_installed_wheel_is_compiled_and_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(argv, check=True)
    sources = {file.stem for file in (target / "vmtui").rglob("*.py")}
    compiled = {file.name.split(".")[0] for file in (target / "vmtui").rglob("*.pyc")}
    assert sources == compiled
    asked = subprocess.run(
        [sys.executable, "-S", "-c", ASK, str(target)], capture_output=True, check=True, text=True, cwd=tmp_path
    )
    where, data = asked.stdout.splitlines()
    assert Path(where).is_relative_to(target)
    assert "dev.toml" in data
    assert "vmtui-dark.toml" in data
