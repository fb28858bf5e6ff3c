"""The roles of serve.toml, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmtui.core.errors import ServeInvalid
from vmtui.core.policy import BUILTIN, Allow, Role, Verb
from vmtui.core.resource import Kind
from vmtui.core.units import Duration
from vmtui.profile import roles

GOOD = """
[serve]
listen = "127.0.0.1:2222"

[role.helper]
about = "runs dev"
idle = "15m"
user = "root"
record = false
approval = ["delete", "purge"]

[[role.helper.allow]]
verbs = ["view", "logs"]

[[role.helper.allow]]
verbs = ["*"]
kinds = ["vm"]
names = ["dev/*"]
labels = { tier = "front" }
own = true

[role.viewer]
allow = [{ verbs = ["view"] }]
"""


def load(tmp_path: Path, text: str) -> dict[str, Role]:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    return roles.load(path)


def test_a_good_file(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    helper = found["helper"]
    assert (helper.name, helper.about, helper.idle, helper.user, helper.record) == (
        "helper", "runs dev", Duration(900), "root", False,
    )  # fmt: skip
    assert helper.approval == (Verb.DELETE, Verb.PURGE)
    assert helper.allow[0] == Allow(verbs=("view", "logs"))
    front = {"tier": "front"}
    assert helper.allow[1] == Allow(verbs=("*",), kinds=(Kind.VM,), names=("dev/*",), labels=front, own=True)
    assert found["viewer"].allow == (Allow(verbs=("view",)),)
    assert found["operator"] == BUILTIN["operator"]
    assert found["admin"] == BUILTIN["admin"]


def test_without_roles_there_are_the_built_in_ones(tmp_path: Path) -> None:
    assert load(tmp_path, "") == BUILTIN


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        ("[serv]", 1, "serv", "unknown table", "'serve'"),
        ("role = 3", 1, "role", "expected tables", ""),
        ("[role]\nx = 3", 2, "role.x", "expected a table, as in [role.x]", ""),
        ("\n[role.A_b]", 2, "role.A_b", "a name is 1 to 40", ""),
        ("[role.a]\nidel = '3m'", 2, "role.a.idel", "unknown key", "'idle'"),
        ("[role.a]\nname = 'b'", 2, "role.a.name", "unknown key", "known here"),
        ("[role.a]\nidle = 'x'", 2, "role.a.idle", "not a duration", ""),
        ("[role.a]\nidle = 0", 2, "role.a.idle", "ends at once", "30m"),
        ("[role.a]\nrecord = 'x'", 2, "role.a.record", "expected true or false", ""),
        ("[role.a]\nuser = 'no-such-user-here'", 2, "role.a.user", "there is no user", "getent"),
        ("[role.a]\napproval = ['stop',\n 'dlete']", 3, "role.a.approval[1]", "'dlete' is not known", "'delete'"),
        ("[role.a]\napproval = ['view']", 2, "role.a.approval[0]", "view cannot wait", "stop"),
        ("[role.a]\nallow = [{}]", 2, "role.a.allow[0]", "required key 'verbs' is missing", "add verbs"),
        ("[role.a]\nallow = [{verbs = []}]", 2, "role.a.allow[0].verbs", "allows nothing", '"*"'),
        ("[[role.a.allow]]\nverbs = ['view']\n[[role.a.allow]]\nverbs = ['stopp']", 4,
         "role.a.allow[1].verbs[0]", "there is no verb 'stopp'", "'stop'"),
        ("[[role.a.allow]]\nverbs = ['view']\nname = ['x']", 3, "role.a.allow[0].name", "unknown key", "'names'"),
        ("[[role.a.allow]]\nverbs = ['view']\nkinds = ['vms']", 3, "role.a.allow[0].kinds[0]", "'vms' is not", "'vm'"),
        ("[[role.a.allow]]\nverbs = ['view']\nnames = ['dev']", 3, "role.a.allow[0].names[0]", "fits no", "dev/*"),
        ("[[role.a.allow]]\nverbs = ['view', 'host']\nown = true", 2,
         "role.a.allow[0].verbs[1]", "host is about no resource", "add another"),
        ("[[role.a.allow]]\nverbs = ['view']\nlabels = {a = 1}", 3, "role.a.allow[0].labels.a", "expected a text", ""),
        ("[[role.a.allow]]\nverbs = ['stop']", 2, "role.a.allow[0].verbs", "not there for it", 'add "view"'),
        ("[role.a]\nallow = 3", 2, "role.a.allow", "expected a list", ""),
        ("[role.a", 1, "", "not TOML", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, line: int, key: str, message: str, hint: str) -> None:
    with pytest.raises(ServeInvalid) as caught:
        load(tmp_path, text)
    fault = caught.value
    assert fault.where == f"{tmp_path}/serve.toml:{line}"
    assert fault.key == key
    assert message in fault.message
    assert hint in fault.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServeInvalid, match="no such file"):
        roles.load(tmp_path / "serve.toml")


keys = st.sampled_from(["allow", "verbs", "names", "kinds", "labels", "idle", "approval", "x", "name", "own"])
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from([*Verb, "dev/*"])
plain = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=8)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.dictionaries(keys, plain, max_size=4))
def test_whatever_it_says_it_is_read_or_refused(tmp_path: Path, table: dict[str, object]) -> None:
    import tomlkit

    def toml(value: object) -> object:
        if isinstance(value, dict):
            return {key: toml(item) for key, item in value.items() if item is not None}
        return [toml(item) for item in value if item is not None] if isinstance(value, list) else value

    try:
        text = tomlkit.dumps({"role": {"a": toml(table)}})
    except (ValueError, TypeError):
        return
    try:
        assert "a" in load(tmp_path, text)
    except ServeInvalid as fault:
        assert fault.key.startswith("role.a") or "not TOML" in fault.message  # noqa: PT017


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "serve.toml"
    path.write_bytes(data)
    try:
        roles.load(path)
    except ServeInvalid as fault:
        assert fault.where.startswith(str(path))  # noqa: PT017
