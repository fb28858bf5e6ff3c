"""`vmtui` as the process of a session that is served to somebody, without the server."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec

from tests.support.cli import TIMEOUT_S, Cli
from vmtui.core.policy import BUILTIN, Role

SESSION = """
import json, sys
import msgspec
from vmtui.core.policy import Person, Role
from vmtui.engine import authority
from vmtui.headless import arguments
role, person, notes, argv = json.loads(sys.argv[1])
def note(verb, refs, result, message):
    with open(notes, "a") as file:
        print(json.dumps([verb, [str(ref) for ref in refs], result, message]), file=file)
sys.argv = ["vmtui", *argv]
person, role = msgspec.convert(person, Person), msgspec.convert(role, Role)
authority.assume(authority.Authority(person=person, role=role, note=note))
sys.exit(arguments.main_in_session(argv))
"""


class Visitor:
    """A person with a role in the workspace of `cli`."""

    def __init__(self, cli: Cli, role: Role | str, name: str = "anna", origin: str = "192.0.2.7 port 40022") -> None:
        self._cli = cli
        self._role = BUILTIN[role] if isinstance(role, str) else role
        self._person = {"name": name, "key": f"SHA256:{name}", "origin": origin}
        self._notes = cli.folder / f"notes-{name}.json"

    def argv(self, *args: str) -> list[str]:
        told = json.dumps([msgspec.to_builtins(self._role), self._person, str(self._notes), args])
        return [sys.executable, "-c", SESSION, told]

    def run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*args), input=stdin.decode(), capture_output=True, text=True, check=False,
            env=self._cli.environment, cwd=self._cli.folder, timeout=TIMEOUT_S,
        )  # fmt: skip

    def ok(self, *args: str, code: int = 0, stdin: bytes = b"") -> str:
        """Its stdout."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == code, f"{args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def refused(self, code: int, *args: str, stdin: bytes = b"") -> str:
        """Its stderr, which has one error."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == code, f"{args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr.count("error: ") == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def notes(self) -> list[tuple[str, str]]:
        """What the server would have been told: verb and result of each act."""
        if not self._notes.exists():
            return []
        return [(verb, result) for verb, _, result, _ in map(json.loads, self._notes.read_text().splitlines())]
