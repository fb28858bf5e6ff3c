"""What the demo shows: four profiles as a small firm has them, repeated until there are as many resources as wanted.

Pure, and the same each time. A resource is known by its profile's number and its own, so that none need be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from zlib import crc32

from vmtui.core.lifecycle import Phase
from vmtui.core.resource import Kind, Problem, Ref
from vmtui.profile.toml_text import pair, table

NOTHING: Mapping[str, Any] = {}
ANY_NAME = "a-name-to-come"
PER_PROFILE = 250  # about, in a large estate: more members than a /22 has addresses are never needed
DAY_S = 86400.0
FIRST_PORT, LAST_PORT, PORTS_PER_PROFILE = 8000, 65000, 80
IMAGES = "docker://docker.io/library/"


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a profile has one or many of. In its texts, {n} is its number."""

    kind: Kind
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)  # as in TOML
    port: int | None = None  # published on a host port of its own
    phase: Phase | None = None  # of the first one of the first profile; the others' are drawn
    code: int = 0
    reason: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """A part's place in every profile of one form: its name there, and the fields that no profile changes.

    `published` is how many before it publish a port.
    """

    part: Part
    number: int
    name: str
    fields: Mapping[str, Any]
    published: int


def _vm(name: str, **fields: Any) -> Part:
    known = {key: fields.pop(key) for key in ("port", "phase", "problems") if key in fields}
    return Part(Kind.VM, name, {"kernel": "deb:linux-image-cloud-amd64", **fields}, **known)


def _container(name: str, image: str, **fields: Any) -> Part:
    known = {key: fields.pop(key) for key in ("port", "phase", "code", "reason", "problems") if key in fields}
    return Part(Kind.CONTAINER, name, {"image": IMAGES + image, **fields}, **known)


def _sandbox(name: str, **fields: Any) -> Part:
    known = {key: fields.pop(key) for key in ("phase", "code", "reason", "problems") if key in fields}
    return Part(Kind.SANDBOX, name, {"module": f"/opt/wasm/{name}.wasm", **fields}, **known)


def _disk(name: str, size: str, **known: Any) -> Part:
    return Part(Kind.DISK, name, {"size": size}, **known)


def _labels(team: str, tier: str) -> dict[str, str]:
    return {"team": team, "tier": tier}


NO_AGENT = Problem(code="agent", message="the guest agent does not answer", hint="vmtui console {ref}")
LEAKED = Problem(code="image", message="3 clusters of the image are leaked", hint="vmtui check {ref}")
GONE = Problem(code="process-gone", message="its process is gone, its sockets are not", hint="vmtui rm {ref}")

# Each line is repeated as a whole: what refers to one another has the same number.
Line = tuple[Part, ...]
SHOP: tuple[Line, ...] = (
    (
        _disk("orders", "40GiB"),
        _vm("db", cpus=4, memory="8GiB", disks=["orders{n}"], networks=["back"], labels=_labels("shop", "data"),
            restart="always"),
    ),
    (_container("cache", "redis:7", networks=["back"], memory="512MiB", labels=_labels("shop", "data")),),
    (_container("api", "python:3.11-slim", networks=["back", "front"], depends_on=["vm/db", "container/cache"],
                memory="1GiB", cpus=2, labels=_labels("shop", "app"), restart="on-failure"),),
    (_container("web", "nginx:1.27", port=80, networks=["front"], depends_on=["container/api"], memory="256MiB",
                labels=_labels("shop", "edge"), ready={"http": "/"}, restart="on-failure"),),
    (_container("web", "nginx:1.27", port=80, networks=["front"], depends_on=["container/api"], memory="256MiB",
                labels=_labels("shop", "edge"), ready={"http": "/"}, restart="on-failure"),),
    (_container("worker", "python:3.11-slim", networks=["back"], depends_on=["container/cache"],
                labels=_labels("shop", "app"), environment={"QUEUE": "orders", "LOG_LEVEL": "info"}),),
    (_disk("uploads", "200GiB"),),
    (_vm("search", cpus=2, memory="4GiB", networks=["back"], labels=_labels("shop", "data"), phase=Phase.BROKEN,
         problems=(GONE,)),),
    (_sandbox("pricing", args=["--rules", "2024"], memory="32MiB", labels=_labels("shop", "app")),),
)  # fmt: skip
CI: tuple[Line, ...] = (
    (
        _disk("artifacts", "500GiB"),
        _vm("runner", cpus=8, memory="16GiB", disks=["artifacts{n}"], networks=["runners"],
            labels=_labels("ci", "build")),
    ),
    (_container("registry", "registry:2", port=5000, networks=["runners"], labels=_labels("ci", "store"),
                restart="always"),),
    (_container("ci-runner", "alpine:3.20", networks=["runners"], memory="2GiB", cpus=2,
                labels=_labels("ci", "build"), restart="unless-stopped"),),
    (_container("ci-runner", "alpine:3.20", networks=["runners"], memory="2GiB", cpus=2,
                labels=_labels("ci", "build"), restart="unless-stopped"),),
    (_container("ci-runner", "alpine:3.20", networks=["runners"], memory="2GiB", cpus=2,
                labels=_labels("ci", "build"), restart="unless-stopped"),),
    (_container("integration", "golang:1.23", networks=["runners"], labels=_labels("ci", "build"), phase=Phase.EXITED,
                code=1, reason="--- FAIL: TestCheckout (0.31s)"),),
    (_sandbox("lint", fuel=50_000_000, timeout="30s", ready={"exit_code": 0}, phase=Phase.EXITED,
              labels=_labels("ci", "check")),),
    (_sandbox("badge", fuel=1_000_000, labels=_labels("ci", "check")),),
)  # fmt: skip
EDGE: tuple[Line, ...] = (
    (_vm("router", cpus=2, memory="512MiB", networks=["wan", "lan"], labels=_labels("net", "core"),
         restart="always"),),
    (_container("dns", "alpine:3.20", networks=["lan"], command=["unbound", "-d"], labels=_labels("net", "core"),
                restart="always"),),
    (_container("proxy", "haproxy:3.0", port=8080, networks=["wan", "lan"], labels=_labels("net", "edge"),
                restart="on-failure"),),
    (_disk("captures", "100GiB", problems=(LEAKED,)),),
    (_sandbox("filter", args=["--drop", "bogons"], memory="16MiB", labels=_labels("net", "core")),),
    (_container("probe", "alpine:3.20", networks=["lan"], labels=_labels("net", "check"), read_only=True),),
    (_sandbox("geoip", memory="48MiB", labels=_labels("net", "core")),),
)  # fmt: skip
HOME: tuple[Line, ...] = (
    (
        _disk("media", "2TiB"),
        _vm("nas", cpus=2, memory="4GiB", disks=["media{n}"], networks=["house"], labels=_labels("home", "store"),
            problems=(NO_AGENT,)),
    ),
    (_container("photos", "httpd:2.4", port=80, networks=["house"], volumes=["photos:/data"],
                labels=_labels("home", "app"), phase=Phase.STOPPED),),
    (_disk("backup", "1TiB"),),
    (_container("backup", "alpine:3.20", networks=["house"], labels=_labels("home", "job"), ready={"exit_code": 0},
                phase=Phase.EXITED),),
    (_vm("desktop", cpus=4, memory="6GiB", networks=["house"], labels=_labels("home", "app"), phase=Phase.PAUSED),),
    (_container("music", "caddy:2", port=8080, networks=["house"], labels=_labels("home", "app")),),
    (_sandbox("thermostat", args=["--loop"], labels=_labels("home", "job")),),
)  # fmt: skip
FORMS: tuple[tuple[str, tuple[str, ...], tuple[Line, ...]], ...] = (
    ("shop", ("front", "back"), SHOP),
    ("ci", ("runners",), CI),
    ("edge", ("wan", "lan"), EDGE),
    ("home", ("house",), HOME),
)
INTERNAL = frozenset({"back"})
SHARES = (12, 10, 9, 9)  # of forty resources


@dataclass(frozen=True, slots=True)
class State:
    """How a resource is found. `age_s` is how long ago it was last started, `ended_s` how long ago it ended."""

    phase: Phase
    age_s: float | None = None
    ended_s: float = 0.0
    code: int = 0
    reason: str = ""
    problems: tuple[Problem, ...] = ()


class Estate:
    """`size` resources in four profiles, or a multiple of four."""

    def __init__(self, size: int) -> None:
        self.size = size
        rounds = max(1, -(-size // (4 * PER_PROFILE)))
        whole = sum(SHARES)
        quotas = [size * share // (whole * rounds) for share in SHARES] * rounds
        short = size - sum(quotas)
        self._quotas = [quota + (number < short) for number, quota in enumerate(quotas)]
        self._texts: dict[int, str] = {}  # of the tables of slots, by their fields

    @property
    def profiles(self) -> range:
        """The numbers of those that have anything."""
        return range(sum(1 for quota in self._quotas if quota))

    def name(self, profile: int) -> str:
        base = FORMS[profile % 4][0]
        return base if profile < 4 else f"{base}-{profile // 4 + 1}"

    def slots(self, profile: int) -> tuple[Slot, ...]:
        return _slots(profile % 4, self._quotas[profile])

    def pick(self, number: int) -> Ref:
        """The resource of a number between 0 and `size`."""
        for profile, quota in enumerate(self._quotas):
            if number < quota:
                slot = self.slots(profile)[number]
                return Ref(self.name(profile), slot.part.kind, slot.name)
            number -= quota
        raise IndexError(number)

    def own(self, profile: int, at: int) -> Mapping[str, Any]:
        """The fields that one resource has beside those of its slot, as in its TOML table."""
        slot = self.slots(profile)[at]
        if slot.part.kind is Kind.NETWORK:
            base = (10 << 24) + (profile << 13) + (at << 10)  # a /22 each, in a /19 of the profile
            return {"subnet": f"{base >> 24}.{base >> 16 & 255}.{base >> 8 & 255}.0/22"}
        port = FIRST_PORT + profile * PORTS_PER_PROFILE + slot.published
        if slot.part.port is None or port > LAST_PORT:
            return NOTHING
        return {"ports": [f"127.0.0.1:{port}:{slot.part.port}"]}

    def state(self, profile: int, at: int) -> State:
        """How it is found: as its part says for the first one, else drawn by its name."""
        slot = self.slots(profile)[at]
        ref = Ref(self.name(profile), slot.part.kind, slot.name)
        draw = crc32(str(ref).encode())
        if not slot.part.kind.runs:
            return State(Phase.AVAILABLE, problems=_of(ref, slot.part.problems) if profile < 4 else ())
        age = 60.0 + draw % 1009 / 1009 * 40 * DAY_S
        if profile < 4 and slot.number == 1:
            phase, code, reason, problems = (
                slot.part.phase or Phase.RUNNING, slot.part.code, slot.part.reason, slot.part.problems,
            )  # fmt: skip
        else:
            phase, code = _drawn(draw >> 8, slot.part)
            reason, problems = "killed" if code == 137 else "", (GONE,) if phase is Phase.BROKEN else ()
        return State(phase, age, age * 0.4, code, reason, _of(ref, problems))

    def toml(self, profile: int) -> str:
        """The profile as a file that plans to what is there."""
        name = self.name(profile)
        texts = [f'# {name}: made up for the demo, nothing is real\n\nname = "{name}"\n']
        for at, slot in enumerate(self.slots(profile)):
            text = self._texts.get(id(slot.fields))
            if text is None:
                text = table((slot.part.kind, ANY_NAME), {"backend": "fake", **slot.fields})
                self._texts[id(slot.fields)] = text
            head, _, rest = text.partition("\n")
            own = "".join(pair(key, value) for key, value in self.own(profile, at).items())
            texts.append(f"{head.replace(ANY_NAME, slot.name)}\n{own}{rest}")
        return "\n".join(texts)


def _of(ref: Ref, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return tuple(Problem(code=p.code, message=p.message, hint=p.hint.format(ref=ref)) for p in problems)


def _drawn(draw: int, part: Part) -> tuple[Phase, int]:
    """Nearly all run; jobs have done their work."""
    if "ready" in part.fields and "exit_code" in part.fields["ready"]:
        return Phase.EXITED, 0
    match draw % 100:
        case 0 | 1 | 2 | 3:
            return Phase.STOPPED, 0
        case 4:
            return Phase.EXITED, 1
        case 5:
            return Phase.EXITED, 137
        case 6:
            return Phase.PAUSED, 0
        case 7 if draw % 300 == 7:
            return Phase.BROKEN, 0
        case _:
            return Phase.RUNNING, 0


@lru_cache(maxsize=16)
def _slots(form: int, quota: int) -> tuple[Slot, ...]:
    """The networks, then the lines over and over until the quota is filled."""
    _, networks, lines = FORMS[form]
    parts = [(Part(Kind.NETWORK, name, {"internal": True} if name in INTERNAL else {}), name) for name in networks]
    parts = parts[:quota]
    counts: dict[tuple[Kind, str], int] = {}
    numbers: list[int] = [1] * len(parts)
    for line in _cycle(lines):
        if len(parts) >= quota:
            break
        if len(parts) + len(line) > quota:
            continue
        for part in line:
            number = counts[part.kind, part.name] = counts.get((part.kind, part.name), 0) + 1
            parts.append((part, part.name if number == 1 else f"{part.name}-{number}"))
            numbers.append(number)
    known = {f"{part.kind}/{name}" for part, name in parts}
    slots: list[Slot] = []
    published = 0
    for (part, name), number in zip(parts, numbers, strict=True):
        slots.append(Slot(part, number, name, _same(part, _known_only(part.fields, number, known)), published))
        published += part.port is not None
    return tuple(slots)


_fields: dict[tuple[Kind, str], list[dict[str, Any]]] = {}


def _same(part: Part, fields: dict[str, Any]) -> dict[str, Any]:
    """The one that parts of this name had before, if it is equal: what is made of it need not be made again."""
    others = _fields.setdefault((part.kind, part.name), [])
    if others and others[-1] == fields:
        return others[-1]
    others.append(fields)
    return fields


def _cycle(lines: tuple[Line, ...]) -> Iterator[Line]:
    while True:
        yield from lines


def _known_only(fields: Mapping[str, Any], number: int, known: set[str]) -> dict[str, Any]:
    """Without references to what a small profile does not have."""
    found = dict(fields)
    suffix = "" if number == 1 else f"-{number}"
    for key, prefix in (("disks", "disk/"), ("networks", "network/"), ("depends_on", "")):
        if key in found:
            names = [name.replace("{n}", suffix) for name in found[key]]
            found[key] = [name for name in names if prefix + name in known]
            if not found[key]:
                del found[key]
    return found
