"""The lines of keys in TOML text."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from vmtui.profile.positions import Positions

DOCUMENT = '''# a comment with [a.header] and key = "value"
name = "dev"

[vm.guest]   # trailing
memory = "1GiB"
cmdline = """
[vm.fake]
memory = 3
"""
disks = [
  "data", # "no"
  'other',
]
ready = { log = "}]", "time out" = "1s" }
environment."PATH.x" = "/bin"
[ container . "web" ]
image = \'\'\'
[x]\'\'\'
ports = [ ["8080:80"], [ "1:1",
  "2:2" ] ]
[[aot]]
key = 1
[aot.inner]
key = 2
[[aot]]
key = 3
inner.key = 4
'''


def test_every_form_has_its_line() -> None:
    tomllib.loads(DOCUMENT)
    at = Positions(DOCUMENT).line
    assert at("name") == 2
    assert at("vm", "guest") == 4
    assert at("vm", "guest", "memory") == 5
    assert at("vm", "guest", "cmdline") == 6
    assert at("vm", "guest", "disks") == 10
    assert at("vm", "guest", "disks", 0) == 11
    assert at("vm", "guest", "disks", 1) == 12
    assert at("vm", "guest", "ready", "time out") == 14
    assert at("vm", "guest", "environment", "PATH.x") == 15
    assert at("container", "web") == 16
    assert at("container", "web", "ports", 1, 1) == 20
    assert at("aot") == 21
    assert at("aot", 0, "key") == 22
    assert at("aot", 0, "inner", "key") == 24
    assert at("aot", 1) == 25
    assert at("aot", 1, "key") == 26
    assert at("aot", 1, "inner", "key") == 27
    assert at("aot", 2, "key") == 21


def test_an_unknown_key_gets_the_line_of_what_holds_it() -> None:
    at = Positions(DOCUMENT).line
    assert at("vm", "guest", "nothing", 3) == 4
    assert at("nowhere") == 1
    assert at() == 1


def test_escapes_in_quoted_keys() -> None:
    assert Positions('\n"a\\tb\\u0063" = 1').line("a\tbc") == 2


def test_text_that_is_not_toml_does_not_raise() -> None:
    for text in ("[", "a = [", "a = {", 'a = "', "=", "[[", "a = [[[[[", '"', "a.", "a = [ = ]"):
        Positions(text).line("a", "b")


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
values = st.recursive(
    st.one_of(texts.map(lambda text: ("text", text)), st.integers(0, 99).map(lambda number: ("number", number))),
    lambda inner: st.lists(inner, max_size=4).map(lambda items: ("list", items)),
    max_leaves=12,
)


def _write(
    value: tuple[str, object], lines: list[str], found: dict[tuple[str | int, ...], int], path: tuple[str | int, ...]
) -> None:
    """Append TOML to the last line; lists break the line between elements, and each element's line is noted."""
    kind, content = value
    if kind == "list":
        assert isinstance(content, list)
        lines[-1] += "["
        for index, item in enumerate(content):
            lines[-1] += " # ] , [" if index % 2 else ""
            lines.append("  ")
            found[(*path, index)] = len(lines)
            _write(item, lines, found, (*path, index))
            lines[-1] += ","
        lines.append("]")
    elif kind == "number":
        lines[-1] += str(content)
    else:
        escaped = str(content).replace("\\", "\\\\").replace('"', '\\"')
        lines[-1] += f'"{escaped}"'


@given(st.dictionaries(texts, values, max_size=6))
def test_random_documents(document: dict[str, tuple[str, object]]) -> None:
    lines: list[str] = ["[table]"]
    found: dict[tuple[str | int, ...], int] = {}
    for key, value in document.items():
        escaped = key.replace("\\", "\\\\").replace('"', '\\"')
        lines += ["", f'"{escaped}" = ']
        found["table", key] = len(lines)
        _write(value, lines, found, ("table", key))
    text = "\n".join(lines)
    tomllib.loads(text)
    at = Positions(text).line
    assert {path: at(*path) for path in found} == found


@given(st.text(max_size=300))
def test_random_text_never_raises(text: str) -> None:
    Positions(text).line("a")
