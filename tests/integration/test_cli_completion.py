"""Completion in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Cli

PROFILE = '[container.web]\nbackend = "fake"\nimage = "x"\n[vm.guest]\nbackend = "fake"\n'
BASH = """
source {script}
COMP_WORDS=(vmtui {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1))
_vmtui; printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def shells(cli: Cli, tmp_path: Path) -> Cli:
    """With `vmtui` in PATH, as completion calls it."""
    cli.ok("--profile", cli.profile(PROFILE))
    program = tmp_path / "bin" / "vmtui"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {cli.argv()[0]} -m vmtui "$@"\n')
    program.chmod(0o755)
    cli.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    cli.environment["HOME"] = str(tmp_path)
    return cli


def ask(cli: Cli, *argv: str) -> list[str]:
    done = subprocess.run(
        argv, capture_output=True, env=cli.environment, cwd=cli.folder, timeout=180, check=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def bash(cli: Cli, words: str) -> list[str]:
    script = cli.folder / "completion.bash"
    script.write_text(cli.ok("completion", "bash"))
    return ask(cli, "bash", "--norc", "-c", BASH.format(script=script, words=words))


def test_bash(shells: Cli) -> None:
    assert {"ls", "logs"} == set(bash(shells, "l"))
    assert bash(shells, "logs ''") == ["dev/container/web", "dev/vm/guest"]
    assert bash(shells, "logs dev/v") == ["dev/vm/guest"]
    assert bash(shells, "logs --fo") == ["--follow"]
    assert bash(shells, "down d") == ["dev"]
    assert bash(shells, "schema ev") == ["events"]
    assert {"kind:", "state:", "label:"} <= set(bash(shells, "ls ''"))
    for words in ("ls kind:v", "ls kind : v"):  # a colon breaks words, or not
        assert bash(shells, words)[0].endswith("vm")
    assert {"vm", "disk"} <= set(bash(shells, "ls kind :"))
    assert bash(shells, "ls profile : d") == []
    assert "--json" in bash(shells, "ls --j")
    assert bash(shells, "--pl") == ["--plain", "--plan"]
    assert bash(shells, "--profile d") == ["dev.toml"]
    assert bash(shells, "--profile dev.toml --only dev/c") == ["dev/container/web"]
    assert "reap" not in bash(shells, "''")
    assert bash(shells, "apply d") == bash(shells, "plan d") == ["dev.toml"]
    assert bash(shells, "apply dev.toml --only dev/c") == ["dev/container/web"]
    assert bash(shells, "recordings p") == ["play"]
    assert bash(shells, "audit --w") == ["--who"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed: apt-get install zsh")
def test_zsh(shells: Cli) -> None:
    script = shells.folder / "_vmtui"
    script.write_text(shells.ok("completion", "zsh"))
    # compadd and _describe need a line editor; here they print what they were given.
    stubs = 'compadd() { shift; print -l -- "$@" }; _describe() { print -l -- ${(P)2} }; compdef() { }; '

    def zsh(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("vmtui", *words))
        code = f"{stubs} source {script}; words=({line}); CURRENT=${{#words}}; _vmtui"
        return ask(shells, "zsh", "-f", "-c", code)

    assert "ls:list" in zsh("")
    assert zsh("logs", "") == ["dev/container/web", "dev/vm/guest"]
    assert "--follow" in zsh("logs", "-")
    assert zsh("down", "") == ["dev"]
    assert {"kind:vm", "state:problem", "label:"} <= set(zsh("ls", ""))
    assert zsh("completion", "") == ["bash", "zsh", "fish"]
    assert "--plan" in zsh("--")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed: apt-get install fish")
def test_fish(shells: Cli) -> None:
    script = shells.folder / "vmtui.fish"
    script.write_text(shells.ok("completion", "fish"))

    def fish(line: str) -> list[str]:
        return [
            word.split("\t")[0]
            for word in subprocess.run(
                ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
                capture_output=True, env=shells.environment, cwd=shells.folder, timeout=180, check=True, text=True,
            ).stdout.splitlines()
        ]  # fmt: skip

    assert {"ls", "logs"} <= set(fish("vmtui l"))
    assert fish("vmtui logs dev/v") == ["dev/vm/guest"]
    assert "--follow" in fish("vmtui logs --f")
    assert fish("vmtui down d") == ["dev"]
    assert "kind:vm" in fish("vmtui ls kind:")
    assert "dev.toml" in fish("vmtui --profile d")
    assert set(fish("vmtui --on-failure ")) == {"rollback", "keep"}
