"""A TOML file to a Profile. Every fault of the file is a ProfileInvalid that names file, line and key."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from vmtui.core.errors import ProfileInvalid
from vmtui.core.resource import NAME, NAME_RULE, Kind, Ref
from vmtui.core.specs import AUTO, SPECS, Ready, decode
from vmtui.profile import document, graph, located, rules
from vmtui.profile.document import meant
from vmtui.profile.positions import Positions
from vmtui.profile.schema import Declared, OptionTypes, Profile

MAX_RESOURCES = 10_000
TOML_INTEGERS = range(-(1 << 63), 1 << 63)  # TOML 1.0, "Integer"
STDIN = "stdin"  # in place of a file's path
FORM = "a profile has tables of the form [KIND.NAME]"
T = TypeVar("T")
Key = tuple[str | int, ...]


def load(path: Path, option_types: OptionTypes) -> Profile:
    """Read, check and resolve a profile. Raises ProfileInvalid and nothing else."""
    return loads(read(path), path, option_types)


def loads(text: str, path: Path | None, option_types: OptionTypes) -> Profile:
    """The same for a text that is, or may come to be, the content of `path`; None for what came through stdin."""
    try:
        return _Loader(path, text, _parse(text, path or STDIN)).profile(option_types)
    except RecursionError:
        raise document.too_deep(str(path or STDIN), ProfileInvalid, FORM) from None


def read_from_stdin(data: bytes, option_types: OptionTypes) -> Profile:
    """The same for all that came through stdin: without a file it needs a name, and paths in full."""
    return loads(document.decoded(data, STDIN, ProfileInvalid), None, option_types)


def name_of(path: Path) -> str:
    """Only the name of a profile: enough to take it down even if the rest of it is wrong. Raises ProfileInvalid."""
    text = read(path)
    return _Loader(path, text, _parse(text, path)).name()


def read(path: Path) -> str:
    """The text of a profile, line ends as they are. Raises ProfileInvalid."""
    hint = f"a profile whose file is gone is taken down with: vmtui down {path.stem}"
    return document.read(path, ProfileInvalid, gone=hint if NAME.fullmatch(path.stem) else "")


def _parse(text: str, path: Path | str) -> dict[str, Any]:
    return document.parse(text, path, ProfileInvalid, form=FORM)


class _Loader:
    def __init__(self, path: Path | None, text: str, document: dict[str, Any]) -> None:
        self._place = str(path or STDIN)
        self._path = None if path is None else Path(os.path.abspath(path)).parent / path.name
        self._stem = "" if path is None else path.stem
        self._document = document
        self._positions = Positions(text)

    def profile(self, option_types: OptionTypes) -> Profile:
        name = self.name()
        self._known(self._document, ["name", *Kind], (), "kind")
        resources: list[Declared] = []
        for kind, tables in self._document.items():
            if kind != "name":
                resources += self._of_kind(name, Kind(kind), tables, option_types)
        if len(resources) > MAX_RESOURCES:
            self._refuse(f"{len(resources)} resources; the limit is {MAX_RESOURCES}", ())
        self._references(resources)
        for key, message, hint in rules.conflicts(resources):
            self._refuse(message, key, hint=hint)
        return Profile(name=name, path=self._path, resources=tuple(resources))

    def name(self) -> str:
        name = self._document.get("name", self._stem)
        if "name" not in self._document and self._path is None:
            self._refuse("a profile on stdin has no file to take its name from", ("name",), hint='add name = "dev"')
        if "name" not in self._document and not NAME.fullmatch(self._stem):
            self._refuse(f"the file's stem {name!r} is not a profile name: {NAME_RULE}", (), hint='add name = "dev"')
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self._refuse(NAME_RULE, ("name",))
        return name

    def _of_kind(self, profile: str, kind: Kind, tables: object, option_types: OptionTypes) -> Iterable[Declared]:
        if not isinstance(tables, dict):
            self._refuse(f"expected tables, as in [{kind}.name]", (kind,))
        if not tables:
            return
        backends = option_types(kind)
        for name, table in tables.items():
            key = (kind, name)
            if not NAME.fullmatch(name):
                self._refuse(NAME_RULE, key)
            if not isinstance(table, dict):
                self._refuse(f"expected a table, as in [{kind}.{name}]", key)
            self._plain(table, key)
            yield self._declared(Ref(profile, kind, name), table, backends)

    def _declared(
        self, ref: Ref, table: dict[str, Any], backends: Mapping[str, type[msgspec.Struct] | None]
    ) -> Declared:
        key = (ref.kind, ref.name)
        spec_type = SPECS[ref.kind]
        fields = {
            name: value for name, value in table.items() if name not in backends or name in spec_type.__struct_fields__
        }
        self._known(fields, [*spec_type.__struct_fields__, *backends], key, "key")
        backend = table.get("backend", AUTO)
        if isinstance(backend, str) and backend != AUTO and backend not in backends:
            choice = ", ".join([AUTO, *sorted(backends)])
            self._refuse(
                f"kind {ref.kind} has no backend {backend!r}", (*key, "backend"),
                hint=meant(backend, [AUTO, *backends]) or f"use one of: {choice}",
            )  # fmt: skip
        spec = self._decode(fields, spec_type, key)
        for where, message, hint in rules.faults(ref, spec):
            self._refuse(message, (*key, *where), hint=hint)
        try:
            spec = located.resolve(spec, self._path and self._path.parent)
        except located.Unusable as error:
            self._refuse(str(error), (*key, error.field))
        options = []
        for name in backends:  # a backend is imported only for its own sub-table
            if name in table and name not in fields:
                if (kind := backends[name]) is None:
                    self._refuse(f"backend {name} has no options of its own", (*key, name))
                options.append((name, self._decode(table[name], kind, (*key, name))))
        return Declared(ref=ref, spec=spec, options=tuple(options), where=self._where(key))

    def _decode(self, table: object, kind: type[T], key: Key) -> T:
        names: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
        if isinstance(table, dict):
            self._known(table, names, key, "key")
            ready = table.get("ready")
            if isinstance(ready, dict) and "ready" in names:
                self._known(ready, Ready.__struct_fields__, (*key, "ready"), "key")
        try:
            return decode(table, kind)
        except msgspec.ValidationError as error:
            message, steps = rules.explain(str(error), table)
            full = (*key, *steps)
            missing = re.match(r"required key '(\w+)' is missing", message)
            if unknown := re.match(r"unknown key '(.*)'$", message):
                full = (*full, unknown[1])
                message = "unknown key"
            self._refuse(message, full, hint=f"add {missing[1]} = …" if missing else "")

    def _references(self, resources: list[Declared]) -> None:
        known = {declared.ref for declared in resources}
        edges: list[graph.Edge] = []
        for declared in resources:
            for edge in graph.dependencies(declared):
                if edge.provider not in known:
                    same = [ref for ref in known - {edge.consumer} if ref.kind is edge.provider.kind]
                    short = graph.REFERENCES[edge.field] is None
                    close = meant(
                        edge.provider.short if short else edge.provider.name,
                        [ref.short if short else ref.name for ref in sorted(same)],
                    )
                    self._refuse(
                        f"there is no {edge.provider.kind} {edge.provider.name!r} in this profile", _key_of(edge),
                        hint=close or f"add [{edge.provider.kind}.{edge.provider.name}]",
                    )  # fmt: skip
                edges.append(edge)
        try:
            graph.order([declared.ref for declared in resources], edges)
        except graph.Cycle as error:
            lines = ", ".join(str(self._positions.line(*_key_of(edge))) for edge in error.edges)
            self._refuse(
                f"a cycle: {error}", _key_of(error.edges[-1]), hint=f"remove one of these references: lines {lines}"
            )

    def _plain(self, value: object, key: Key) -> None:
        """What TOML can say and JSON, a file name or a command line cannot."""
        if isinstance(value, str):
            if "\0" in value:
                self._refuse("a text cannot hold the character NUL", key)
        elif isinstance(value, float):
            if not math.isfinite(value):
                self._refuse(f"{value} is not a usable number", key)
        elif isinstance(value, dict):
            for name, item in value.items():
                if "\0" in name:
                    self._refuse("a key cannot hold the character NUL", key)
                self._plain(item, (*key, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._plain(item, (*key, index))
        elif isinstance(value, int) and value not in TOML_INTEGERS:
            self._refuse("the number has more than 64 bits", key)

    def _known(self, table: Mapping[str, object], names: Iterable[str], key: Key, what: str) -> None:
        names = [str(name) for name in names]
        for name in table:
            if name not in names:
                hint = meant(name, names) or f"known here: {', '.join(sorted(names))}"
                self._refuse(f"unknown {what}", (*key, name), hint=hint)

    def _where(self, key: Key) -> str:
        return f"{self._place}:{self._positions.line(*key)}"

    def _refuse(self, message: str, key: Key, *, hint: str = "") -> NoReturn:
        raise ProfileInvalid(message, where=self._where(key), key=rules.dotted(key), hint=hint)


def _key_of(edge: graph.Edge) -> Key:
    return (edge.consumer.kind, edge.consumer.name, edge.field, edge.index)
