"""What the host has: links, rules, mounts, cgroups, processes and files, taken before and after and compared.

Two modes. Without `words` a view is of everything, for a machine on which nobody else works. With `words` (the
workspace's token, the tokens of its resources, its directories) it is of what carries one of them, so that others may
work on the same machine meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmtui.core.backend import Context
from vmtui.core.resource import Ref
from vmtui.host.paths import Paths

VOLATILE = frozenset({"handle", "packets", "bytes", "index", "ifindex", "stats64", "valid_life_time", "metainfo"})
CGROUPS = Path("/sys/fs/cgroup")
TOOL_TIMEOUT_S = 90


@dataclass(frozen=True, slots=True)
class HostView:
    """Lines by section; a line is what a person sees of one thing."""

    sections: dict[str, frozenset[str]]

    @classmethod
    def take(cls, directories: Iterable[Path] = (), words: Iterable[str] = ()) -> HostView:
        wanted = tuple(words)
        found = {
            "links": _links(),
            "addresses": _addresses(),
            "rules": _rules(),
            "mounts": _mounts(),
            "cgroups": _cgroups(),
            "processes": _processes(),
        }
        sections = {
            name: frozenset(line for line, text in lines if not wanted or any(word in text for word in wanted))
            for name, lines in found.items()
        }
        sections["files"] = frozenset(line for directory in directories for line in _files(directory))
        return cls(sections)

    @classmethod
    def of(cls, context: Context, refs: Iterable[Ref] = (), *, files: bool = True) -> HostView:
        """Of one workspace alone; `refs` are the resources that it may have."""
        paths = context.paths
        tokens = [ref.token(context.workspace) for ref in refs]
        roots = [str(root) for root in (paths.state, paths.cache, paths.runtime)]
        return cls.take((paths.state, paths.runtime) if files else (), [context.workspace, *tokens, *roots])

    @classmethod
    def everything(cls, paths: Paths) -> HostView:
        """Of the whole machine, with the directories of `paths`."""
        return cls.take((paths.state, paths.cache, paths.runtime))

    @property
    def empty(self) -> bool:
        return not any(self.sections.values())

    def diff(self, after: HostView) -> str:
        """What is gone (-) and what is new (+), a line each; "" if nothing."""
        lines = []
        for name, before in self.sections.items():
            now = after.sections[name]
            lines += [f"{name}: - {line}" for line in sorted(before - now)]
            lines += [f"{name}: + {line}" for line in sorted(now - before)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {line}" for name, lines in self.sections.items() for line in sorted(lines))


Lines = Iterator[tuple[str, str]]  # what is shown, and the text in which words are looked for


def _json(*argv: str) -> Any:
    """What a tool says in JSON; None where it is missing or may not be asked."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False)
    except FileNotFoundError:
        return None
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _stable(value: Any) -> Any:
    """The same without what changes by itself."""
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in VOLATILE}
    return [_stable(item) for item in value] if isinstance(value, list) else value


def _links() -> Lines:
    for link in _json("ip", "-j", "-d", "link") or ():
        shown = " ".join(
            str(link[key]) for key in ("ifname", "link_type", "address", "master", "ifalias") if link.get(key)
        )
        yield shown, json.dumps(link)
    for name in sorted(Path("/run/netns").glob("*")):
        yield f"namespace {name.name}", str(name)


def _addresses() -> Lines:
    for link in _json("ip", "-j", "-d", "addr") or ():
        for address in link.get("addr_info", ()):
            yield f"{link['ifname']} {address.get('local')}/{address.get('prefixlen')}", json.dumps(link)


def _rules() -> Lines:
    ruleset = _json("nft", "-j", "list", "ruleset") or {}
    for item in ruleset.get("nftables", ()):
        if "metainfo" not in item:
            line = json.dumps(_stable(item), sort_keys=True)
            yield line, line


def _mounts() -> Lines:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target, kind, *_ = line.split(" ")
        yield f"{kind} {source} on {target}", line


def _cgroups() -> Lines:
    for root, names, _ in os.walk(CGROUPS):
        for name in names:
            path = f"{root}/{name}"
            yield path, path


def _processes() -> Lines:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            if argv:  # kernel threads and zombies have none
                environment = (entry / "environ").read_bytes().decode("utf-8", "replace")
                yield f"{entry.name} {argv}", f"{argv}\n{environment}"
        except OSError:
            continue


def _files(directory: Path) -> Iterator[str]:
    for root, folders, files in os.walk(directory):
        for name in folders:
            yield f"{root}/{name}/"
        for name in files:
            yield f"{root}/{name}"
