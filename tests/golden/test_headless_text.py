"""What people read: help, plans, tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.golden import ROOT, SNAPSHOTS, check
from vmtui.core.backend import Desired, Probe
from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Address, Endpoint, Exit, Fact, Kind, Port, Problem, Ref, Sample, Status
from vmtui.core.specs import ContainerSpec, DiskSpec, NetworkSpec, Ready, Restart, VmSpec, encode
from vmtui.core.units import Publish, Size
from vmtui.engine.plan import Change, FieldChange, Plan
from vmtui.engine.registry import option_types
from vmtui.headless import completion, diff, tables, text
from vmtui.headless.arguments import profile_parser
from vmtui.headless.commands import HIDDEN, VERBS, parser_of
from vmtui.profile import jsonschema

HEADLESS = SNAPSHOTS / "headless"
NOW = 1_700_000_000.0
NETWORK, DISK = Ref("dev", Kind.NETWORK, "lab"), Ref("dev", Kind.DISK, "data")
GUEST, WEB, HELLO = Ref("dev", Kind.VM, "guest"), Ref("dev", Kind.CONTAINER, "web"), Ref("dev", Kind.SANDBOX, "hello")

STATUSES = [
    Status(
        ref=GUEST,
        backend="qemu",
        phase=Phase.RUNNING,
        pid=4711,
        started_at=NOW - 75,
        addresses=(Address(network="lab", address="10.88.0.10"),),
        facts=(Fact(name="accelerator", value="tcg"), Fact(name="firmware\x1b[2J", value="none\u202e")),
    ),
    Status(
        ref=WEB,
        backend="oci",
        phase=Phase.RUNNING,
        started_at=NOW - 7300,
        addresses=(Address(network="lab", address="10.88.0.2"),),
        endpoints=(Endpoint(url="http://127.0.0.1:8080/", about="8080:80/tcp"),),
        ports=(Port(network=NETWORK, consumer=WEB, index=0, medium="veth", interface="vmt0", present=False),),
    ),
    Status(ref=HELLO, backend="wasm", phase=Phase.EXITED, exit=Exit(code=134, reason="unreachable trap")),
    Status(ref=DISK, backend="qcow2", phase=Phase.AVAILABLE, size_bytes=1 << 30),
    Status(
        ref=NETWORK,
        backend="tap",
        phase=Phase.BROKEN,
        problems=(Problem(code="bridge-gone", message="bridge vmt1 is gone", hint="vmtui --profile dev.toml"),),
    ),
]


def lines(*shown: str) -> str:
    return "\n".join(shown) + "\n"


def test_help() -> None:
    check(HEADLESS / "help.txt", profile_parser().format_help())


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in HIDDEN])
def test_help_of_verbs(verb: str) -> None:
    check(HEADLESS / f"help-{verb.replace(' ', '-')}.txt", parser_of(verb).format_help())


@pytest.mark.parametrize("width", [80, 120])
def test_list(width: int) -> None:
    check(HEADLESS / f"ls-{width}.txt", lines(*tables.resources(STATUSES, now=NOW, width=width)))


def test_list_in_colours() -> None:
    check(HEADLESS / "ls-colours.txt", lines(*tables.resources(STATUSES, now=NOW, width=120, paint=text.coloured)))


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status.ref.name)
def test_detail(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "moment", lambda at: f"@{at:.0f}")
    spec = encode(DiskSpec(size=Size(1 << 30)))
    given = [(name, diff.shown(value)) for name, value in spec.items() if value]
    check(HEADLESS / f"inspect-{status.ref.name}.txt", lines(*tables.detail(status, given)))


def test_doctor() -> None:
    probes = [
        Probe(backend="tap", kind=Kind.NETWORK, usable=True, summary="nftables 1.0.6, dnsmasq 2.90"),
        Probe(
            backend="kvm",
            kind=Kind.VM,
            usable=False,
            summary="/dev/kvm opens, and does not boot a guest",
            problems=(
                Problem(
                    code="kvm",
                    message="KVM emulates: no VMX and no SVM\x1b[31m",
                    hint="use backend qemu, or another host",
                ),
            ),
        ),
    ]
    check(HEADLESS / "doctor-80.txt", lines(*tables.probes(probes, width=80)))


def test_stats() -> None:
    before = Sample(at=NOW - 2, cpu_s=10.0)
    now = Sample(at=NOW, cpu_s=11.5, memory_bytes=150 << 20, memory_limit_bytes=1 << 30, net_rx_bytes=5000, processes=7)
    check(HEADLESS / "stats-100.txt", lines(*tables.samples([(WEB, before, now), (GUEST, None, before)], width=100)))


def plan() -> Plan:
    def desired(ref: Ref, spec: object, backend: str) -> Desired[object]:  # type: ignore[type-var]
        return Desired(ref=ref, backend=backend, spec=spec)  # type: ignore[type-var]

    web = ContainerSpec(
        image="docker://nginx",
        networks=("lab",),
        ports=(Publish(8080, 80),),
        restart=Restart.ALWAYS,
        ready=Ready(http="/"),
    )
    return Plan(
        profile="dev",
        changes=(
            Change(ref=WEB, action="create", reason="it is new", backend="oci", desired=desired(WEB, web, "oci")),
            Change(
                ref=GUEST,
                action="recreate",
                reason="changed: memory, kernel",
                backend="qemu",
                desired=desired(GUEST, VmSpec(), "qemu"),
                fields=(FieldChange("memory", "512MiB", "1GiB"), FieldChange("kernel", "", "/boot/vm\x1b[0mlinuz")),
            ),
            Change(ref=DISK, action="resize", reason="its size differs", fields=(FieldChange("size", "1GiB", "2GiB"),)),
            Change(ref=HELLO, action="delete", reason="no longer declared", backend="wasm"),
            Change(ref=Ref("dev", Kind.DISK, "old"), action="delete", reason="taken down", data_loss=True),
            Change(
                ref=NETWORK,
                action="mend",
                reason="bridge vmt1 is gone",
                desired=desired(NETWORK, NetworkSpec(), "tap"),
                fields=(FieldChange("ready", "null", '{"log":"x","tcp":null}'),),
            ),
        ),
        unchanged=(Ref("dev", Kind.DISK, "other"),),
    )


def test_plan() -> None:
    check(HEADLESS / "plan.txt", lines(*diff.render(plan())))


def test_plan_in_colours() -> None:
    check(HEADLESS / "plan-colours.txt", lines(*diff.render(plan(), text.coloured)))


def test_nothing_to_plan() -> None:
    assert list(diff.render(Plan(profile="dev", changes=()))) == ["dev: no changes"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    check(HEADLESS / f"completion.{shell}", getattr(completion, shell)())


def documents() -> dict[str, str]:
    return {
        "profile": jsonschema.text(jsonschema.profile(option_types)),
        "events": jsonschema.text(jsonschema.events()),
        "config": jsonschema.text(jsonschema.config()),
        "serve": jsonschema.text(jsonschema.serve()),
    }


@pytest.mark.parametrize("name", ["profile", "config", "events", "serve"])
def test_schemas_in_docs_are_current(name: str) -> None:
    check(Path(ROOT / "docs/schema" / f"{name}.json"), documents()[name])
