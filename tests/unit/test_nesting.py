"""Keys that nest too deeply are found before tomllib sees them, whatever stands around them, and at once."""

from __future__ import annotations

import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtui.profile.nesting import MAX_PARTS, too_deep

DEEP = "a." * MAX_PARTS + "a"
MOST = "a." * (MAX_PARTS - 1) + "a"
HOSTILE = (
    "[", '"', "'", "\\", "#", "a", "a.", ".", '"""', "'''", '"""\\', '\\"""', "a.'", 'a."', '"\\', "a ", "a\t.", "[a.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{DEEP} = 1", 1),
        (f"\n[{DEEP}]", 2),
        (f"[[{DEEP}]]", 1),
        (f"x = {{ {DEEP} = 1 }}", 1),
        (f"x = '''\n'''\n{DEEP} = 1", 3),
        (DEEP.replace(".", " \t. ") + " = 1", 1),
        (DEEP.replace("a", '"a.\\"b"') + " = 1", 1),
        (DEEP.replace("a", "'a.b'") + " = 1", 1),
        (f"[{MOST}]\n{MOST} = 1", None),
        (f"# {DEEP}", None),
        (f'x = "{DEEP}"', None),
        (f"x = '{DEEP}'", None),
        (f'x = """\n{DEEP}\n\\"""{DEEP}"""', None),
        (f"x = '''\n{DEEP} = 1'''", None),
        (f"{'a' * 1000} = 1", None),
    ],
)
def test_depth(text: str, line: int | None) -> None:
    assert too_deep(text) == line


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_mebibyte_of_anything_takes_no_time(unit: str) -> None:
    began = time.process_time()
    too_deep(unit * ((1 << 20) // len(unit)))
    assert time.process_time() - began < 2


def _depth(value: object) -> int:
    return 1 + max((_depth(item) for item in value.values()), default=0) if isinstance(value, dict) else 0


@given(st.lists(st.sampled_from([*HOSTILE, DEEP, "=", "1", "\n", " ", "]", "{", "}", ","]), max_size=30).map("".join))
def test_what_it_lets_pass_does_not_nest_deeply(text: str) -> None:
    if too_deep(text) is None:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return
        assert _depth(document) <= 4 * MAX_PARTS  # a key of a table in a table
