"""The settings file: what is taken of it, what is refused where, and how one key is written."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.support.golden import REGENERATE, ROOT, check
from vmtui.core.errors import SettingsInvalid
from vmtui.core.units import Duration
from vmtui.profile import descriptions, jsonschema
from vmtui.profile.settings import Column, Settings, load_settings, path, read, write_setting

GOOD = """# mine
theme = "nord"
ascii = true
mouse = false
refresh = "500ms"
columns = ["state", "name", "cpu"]
detach_key = "f12"

[keys]
quit = "ctrl+x"     # as in nano
help = "?,f1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vmtui" / "config.toml"


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert path() == tmp_path / "vmtui" / "config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert path() == Path("/home/ann/.config/vmtui/config.toml")


def test_without_a_file_everything_is_as_it_ships(file: Path) -> None:
    assert read(file) == (Settings(), ())
    assert Settings().refresh == Duration(2)


def test_a_file_with_all_keys(file: Path) -> None:
    settings, problems = read(written(file, GOOD))
    assert problems == ()
    assert settings == Settings(
        theme="nord",
        ascii=True,
        mouse=False,
        refresh=Duration(0.5),
        columns=(Column.STATE, Column.NAME, Column.CPU),
        detach_key="f12",
        keys={"quit": "ctrl+x", "help": "?,f1"},
    )
    assert load_settings(file) == settings


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('x = 1\nthem = "nord"', ":2: them: unknown key", "did you mean 'theme'?"),
        ("frob = 1", ":1: frob: unknown key", "known here: ascii, columns"),
        ("theme = 3", ":1: theme: expected a text, not a whole number", ""),
        ('\nmouse = "yes"', ":2: mouse: expected true or false, not a text", ""),
        ('refresh = "soon"', ":1: refresh: 'soon' is not a duration", ""),
        ("refresh = 0.01", ":1: refresh: 10ms is too often", "write at least 200ms"),
        ('columns = [\n"state",\n"cpuu"]', ":3: columns[1]: there is no column 'cpuu'", "did you mean 'cpu'?"),
        ('columns = ["x"]', ":1: columns[0]: there is no column 'x'", "known: state, kind"),
        ("columns = [1]", ":1: columns[0]: expected a text", ""),
        ('columns = ["cpu", "cpu"]', ":1: columns: a column is named twice", ""),
        ('detach_key = ""', ":1: detach_key: exactly one key", "ctrl+]"),
        ("[keys]\n\nquit = 1", ":3: keys.quit: expected a text", ""),
        ("keys = 1", ":1: keys: expected a table", ""),
        ("theme = ", ":1: not TOML", ""),
        ('theme = "a"\ntheme = "b"', ":2: not TOML", "written once"),
        ("a" + ".a" * 100 + " = 1", ":1: it is nested too deeply", "KEY = VALUE"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(file: Path, text: str, said: str, hint: str) -> None:
    _, problems = read(written(file, text))
    (problem,) = [problem for problem in problems if str(problem).startswith(f"{file}{said}")]
    assert hint in problem.hint
    with pytest.raises(SettingsInvalid):
        load_settings(file)


def test_wrong_keys_do_not_take_the_right_ones_with_them(file: Path) -> None:
    text = 'theme = "nord"\nmouse = 3\nfrob = 1\n[keys]\nquit = "x"\nhelp = 1\n'
    settings, problems = read(written(file, text))
    assert settings == Settings(theme="nord", keys={"quit": "x"})
    assert [problem.key for problem in problems] == ["mouse", "frob", "keys.help"]
    assert [problem.where for problem in problems] == [f"{file}:{line}" for line in (2, 3, 6)]


@pytest.mark.parametrize("kind", ["directory", "binary", "fifo", "dangling"])
def test_what_is_no_file_of_text_is_a_problem(file: Path, kind: str) -> None:
    file.parent.mkdir()
    if kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "dangling":
        file.symlink_to("nowhere")
    else:
        file.write_bytes(b'theme = "\xff"')
    settings, problems = read(file)
    assert settings == Settings()
    assert len(problems) == 1
    assert str(problems[0]).startswith(str(file))


LINES = st.lists(st.sampled_from([*GOOD.splitlines(), "[", "= 1", "keys.x = 2"]), max_size=8).map("\n".join)


@given(text=st.one_of(st.text(max_size=80), LINES))
def test_no_text_breaks_it(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    settings, problems = read(file)
    assert isinstance(settings, Settings)
    assert all(str(problem).startswith(str(file)) for problem in problems)


def test_one_key_is_written_and_all_else_stays(file: Path) -> None:
    written(file, GOOD).chmod(0o640)
    write_setting(file, ("theme",), "vmtui-light")
    assert file.read_text() == GOOD.replace('"nord"', '"vmtui-light"')
    write_setting(file, ("keys", "quit"), "f10")
    assert 'quit = "f10"     # as in nano' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_new_key_goes_before_the_tables(file: Path) -> None:
    write_setting(written(file, '# keys\n[keys]\nquit = "x"\n'), ("theme",), "nord")
    assert tomllib.loads(file.read_text()) == {"theme": "nord", "keys": {"quit": "x"}}
    assert "# keys" in file.read_text()


def test_a_file_is_made_where_there_is_none(file: Path) -> None:
    write_setting(file, ("keys", "help"), "f1")
    write_setting(file, ("mouse",), False)
    write_setting(file, ("columns",), ["name"])
    assert load_settings(file) == Settings(keys={"help": "f1"}, mouse=False, columns=(Column.NAME,))


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("mouse = true\n")
    file.parent.mkdir()
    file.symlink_to(real)
    write_setting(file, ("mouse",), False)
    assert file.is_symlink()
    assert real.read_text() == "mouse = false\n"


def test_a_wrong_file_or_value_is_left_alone(file: Path) -> None:
    written(file, "theme = \n")
    with pytest.raises(SettingsInvalid, match=":1: not TOML"):
        write_setting(file, ("theme",), "nord")
    assert file.read_text() == "theme = \n"
    written(file, "mouse = true\n")
    with pytest.raises(SettingsInvalid, match="mouse: expected true or false"):
        write_setting(file, ("mouse",), "yes")
    with pytest.raises(SettingsInvalid, match="unknown key"):
        write_setting(file, ("frob",), "yes")
    assert file.read_text() == "mouse = true\n"


def test_the_schema_says_the_same() -> None:
    schema = jsonschema.config()
    check(ROOT / "docs/schema/config.json", jsonschema.text(schema))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(tomllib.loads(GOOD))
    for wrong in ({"frob": 1}, {"columns": ["x"]}, {"mouse": "yes"}, {"keys": {"quit": 1}}):
        assert list(validator.iter_errors(wrong)), json.dumps(wrong)


DOCUMENT = ROOT / "docs/config.md"
TYPES = {
    "theme": "text",
    "ascii": "true, false",
    "mouse": "true, false",
    "refresh": "time",
    "columns": "list of texts",
    "detach_key": "key",
    "keys": "table of keys",
}


def table() -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    ships = {"mouse": "`true`", "refresh": "`2s`", "detach_key": "`ctrl+]`"}
    lines += [
        f"| `{name}` | {TYPES[name]} | {ships.get(name, '')} | {about} |"
        for name, about in ((name, descriptions.of(Settings, name)) for name in Settings.__struct_fields__)
    ]
    return "\n".join(lines) + "\n"


def test_the_document_is_current() -> None:
    text = DOCUMENT.read_text()
    block = re.search(r"(?<=<!-- table: config -->\n).*?(?=<!-- end -->)", text, re.DOTALL)
    assert block is not None
    if os.environ.get(REGENERATE):
        DOCUMENT.write_text(text[: block.start()] + table() + text[block.end() :])
        return
    assert block[0] == table()


def test_the_example_of_the_document_is_right(file: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    assert load_settings(written(file, example[1])) != Settings()
