"""A workspace whose texts come from strangers who mean harm: in every field that can hold a text."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

from tests.support.fakes import FakeRegistry
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.backend import Attachments, Desired, DiskAttachment, PortRequest
from vmtui.core.lifecycle import Action, Phase
from vmtui.core.resource import Exit, Fact, Kind, Problem, Ref
from vmtui.core.simulation import Planted, Simulates, SimulatesLinks
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, SandboxSpec, Spec, VmSpec, encode, spec_hash
from vmtui.core.units import Mount, Publish, Size
from vmtui.engine.store import DATABASE, Intent, Store, open_context
from vmtui.host.paths import Paths
from vmtui.profile import toml_text

PROFILE = "evil"
TEXTS = {
    "open tag": "vm [/",
    "closing tag": "[/bold]vm [red]x",
    "action": "[@click=app.quit]x[/]",
    "another action": "[@click='app.demo']x[/]",
    "link": "[link='file:///etc/passwd']x[/link]",
    "colour": "\x1b[31mred\x1b[0m",
    "clipboard": "\x1b]52;c;b3duZWQ=\x1b\\",
    "clipboard, c1": "\x9d52;c;b3duZWQ=\x9c",
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H\x1bc",
    "clear, c1": "\x9b2J",
    "device control": "\x1bP+q544e\x1b\\",
    "program": "\x1b_owned\x1b\\\x1b^owned\x1b\\\x1bXowned\x1b\\",
    "query": "\x1b[6n\x1b[c\x1b[?2026$p\x1b[>q",
    "modes": "\x1b[?1049l\x1b[?1000h\x1b[?25h\x1b[?2026l\x1b(0\x0e",
    "override": "\u202elive\u202c \u2066x\u2069 \u200fx",
    "lines": "a\nb\r\nc\rd\te\x0b\x0c\x85\u2028f\x00\x08\x7f",
    "wide": "中文 👩‍👩‍👧 e\u0301\u200b",
}
ALL = " ".join(TEXTS.values())
LONG = ALL + "A" * 100_000
# A file's name can hold bytes that are no text: Python reads them as lone surrogates.
FILE_NAME = os.fsdecode(b"a\xff\xfe\x1b[2J\x1b]0;owned\x07[@click=app.quit]x[\xe2\x80\xae")
LABELS = {"x [/": ALL, ALL: "1", "long": LONG}
PROBLEMS = tuple(Problem(code="x", message=text, hint=text) for text in (ALL, LONG, *TEXTS.values()))
FACTS = tuple(Fact(name=text[:30], value=text) for text in (ALL, LONG, *TEXTS.values()))
LOG = (*TEXTS.values(), ALL, LONG, "error: " + ALL, "warning: " + ALL)

SPECS: dict[str, Spec] = {
    "network/lab": NetworkSpec(backend="fake", subnet="10.66.6.0/24", domain="x [/", labels=LABELS),
    "disk/data": DiskSpec(backend="fake", size=Size(1 << 30), source=ALL, source_format="raw", labels=LABELS),
    "vm/guest": VmSpec(
        backend="fake", kernel=ALL, rootfs="oci:x", cmdline=LONG, command=(ALL, LONG), environment={"A": LONG},
        disks=("data",), networks=("lab",), labels=LABELS,
    ),
    "container/web": ContainerSpec(
        backend="fake", image=ALL, command=(ALL,), entrypoint=(ALL,), environment={"A": ALL}, user=ALL, working_dir=ALL,
        volumes=(Mount("/x [/", "/\x1b[2J"),), networks=("lab",), ports=(Publish(8080, 80),), hostname=ALL,
        labels=LABELS,
    ),
    "container/dead": ContainerSpec(backend="fake", image=LONG, labels=LABELS),
    "sandbox/box": SandboxSpec(backend="fake", module=LONG, args=(ALL,), labels=LABELS),
    f"sandbox/{'x' * 40}": SandboxSpec(backend="fake", module="/m", entrypoint=ALL, labels=LABELS),
}  # fmt: skip
OPTIONS = FakeOptions(
    log=LOG, greeting=ALL, fail_on=(Action.STOP, Action.PAUSE, Action.DELETE), fail_with=ALL, exit_reason=ALL
)


def make(paths: Paths, folder: Path) -> Path:
    """Put it all into the state directory, and a profile that differs from it into `folder`; its path."""
    context = open_context(paths)
    registry = FakeRegistry(context)
    store = Store(paths.state / DATABASE, by=ALL)
    refs = {short: Ref.parse(f"{PROFILE}/{short}") for short in SPECS}
    wanted = {
        ref: Desired[Any](
            ref=ref, backend="fake", spec=SPECS[short], options=OPTIONS, spec_hash=spec_hash(SPECS[short], OPTIONS)
        )
        for short, ref in refs.items()
    }
    plant(registry, wanted[refs["network/lab"]], Phase.AVAILABLE)
    plant(registry, wanted[refs["disk/data"]], Phase.AVAILABLE)
    links = cast("SimulatesLinks", registry.get(Kind.NETWORK, "fake"))
    for short, medium in (("vm/guest", "tap"), ("container/web", "veth")):
        request = PortRequest(consumer=refs[short], index=0, medium=medium, hostname=ALL)
        ports = tuple(links.plug(refs["network/lab"], [request]))
        disk = DiskAttachment(ref=refs["disk/data"], path=ALL, format=ALL, serial=ALL)
        disks = (disk,) if short.startswith("vm") else ()
        plant(registry, wanted[refs[short]], Phase.RUNNING, Attachments(disks=disks, ports=ports))
    plant(registry, wanted[refs["container/dead"]], Phase.EXITED)
    plant(registry, wanted[refs["sandbox/box"]], Phase.BROKEN)
    plant(registry, wanted[refs[f"sandbox/{'x' * 40}"]], Phase.PAUSED)
    file = folder / "evil.toml"
    tables = [
        toml_text.table(short.split("/"), {**_given(spec), "labels": {"other [/": ALL}})
        for short, spec in SPECS.items()
    ]
    file.write_text("\n".join(tables).replace("\\u0000", ""))  # a NUL is refused
    (folder / f"{FILE_NAME}.toml").write_text(f"# [@click=app.quit]x[/]\n[container.{'z' * 40}]\nimage = 1\n")
    store.put_profile(PROFILE, str(file))
    for ref, want in wanted.items():
        store.put(want, Intent.UP)
        for text in (ALL, LONG):
            store.record(ref, "start", "failed", text)
    store.record(refs["vm/guest"], ALL, ALL, ALL)
    store.journal_begin("run", refs["vm/guest"], ALL)
    store.close()
    return file


def plant(registry: FakeRegistry, desired: Desired[Any], phase: Phase, attachments: Attachments | None = None) -> None:
    cast("Simulates", registry.get(desired.ref.kind, "fake")).plant(
        [
            Planted(
                desired=desired,
                phase=phase,
                since=time.time() - 3600 if desired.ref.kind.runs else None,
                exit=Exit(code=3, reason=ALL, at=time.time() - 60),
                attachments=attachments or Attachments(),
                problems=PROBLEMS,
                facts=FACTS,
            )
        ]
    )


def _given(spec: Spec) -> dict[str, Any]:
    """What a person would write."""
    return {key: value for key, value in encode(spec).items() if value not in (None, [], {}, "no", "user")}


def configure(config: Path) -> None:
    """Settings and themes that are wrong in every way."""
    (config / "themes").mkdir(parents=True)
    hostile = toml_text.value(ALL, multiline=False)
    (config / "config.toml").write_text(f"{hostile} = 1\ntheme = {hostile}\n[keys]\n{hostile} = {hostile}\n")
    (config / "themes" / f"{FILE_NAME}.toml").write_text(f"{hostile} = {hostile}\n")
