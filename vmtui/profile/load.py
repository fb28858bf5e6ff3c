"""A TOML file to a Profile. Every fault of the file is a ProfileInvalid that names file, line and key."""

from __future__ import annotations

import ast
import difflib
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from vmtui.core.errors import ProfileInvalid
from vmtui.core.resource import NAME, NAME_RULE, Kind, Ref
from vmtui.core.specs import AUTO, SPECS, Ready, decode
from vmtui.profile import graph, located, nesting, rules
from vmtui.profile.positions import Positions
from vmtui.profile.schema import Declared, OptionTypes, Profile

MAX_FILE_BYTES = 1 << 20
MAX_RESOURCES = 10_000
TOML_INTEGERS = range(-(1 << 63), 1 << 63)  # TOML 1.0, "Integer"
POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
NAMES = re.compile(r"\('.*?',?\)(?= (?:twice|immutable))")  # tomllib shows a key as a tuple
T = TypeVar("T")
Key = tuple[str | int, ...]


def load(path: Path, option_types: OptionTypes) -> Profile:
    """Read, check and resolve a profile. Raises ProfileInvalid and nothing else."""
    try:
        return _Loader(path, *_parse(path)).profile(option_types)
    except RecursionError:
        raise _too_deep(str(path)) from None


def name_of(path: Path) -> str:
    """Only the name of a profile: enough to take it down even if the rest of it is wrong. Raises ProfileInvalid."""
    return _Loader(path, *_parse(path)).name()


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    text = _read(path)
    if (deep := nesting.too_deep(text)) is not None:
        raise _too_deep(f"{path}:{deep}")
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise _too_deep(str(path)) from None
    except tomllib.TOMLDecodeError as error:
        message = NAMES.sub(lambda match: rules.dotted(ast.literal_eval(match[0])), str(error))
        found = POSITION.search(message)
        line = f":{found[1] or text.count(chr(10)) + 1}" if found else ""
        message = POSITION.sub("", message)
        hint = "each table and key may be written once" if "twice" in message or "overwrite" in message else ""
        raise ProfileInvalid(
            f"not TOML: {message[:1].lower()}{message[1:]}", where=f"{path}{line}", hint=hint
        ) from None
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits
        raise ProfileInvalid("not TOML: a number has too many digits", where=str(path)) from None


def _too_deep(where: str) -> ProfileInvalid:
    return ProfileInvalid("it is nested too deeply", where=where, hint="a profile has tables of the form [KIND.NAME]")


def _read(path: Path) -> str:
    try:
        # A fifo would block the open, and its content has no end.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ProfileInvalid("not a regular file", where=str(path))
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        hint = f"vmtui down {path.stem}" if isinstance(error, FileNotFoundError) and NAME.fullmatch(path.stem) else ""
        hint = f"a profile whose file is gone is taken down with: {hint}" if hint else ""
        raise ProfileInvalid(f"cannot read it: {reason[:1].lower()}{reason[1:]}", where=str(path), hint=hint) from None
    if len(data) > MAX_FILE_BYTES:
        raise ProfileInvalid(f"larger than {MAX_FILE_BYTES >> 20} MiB", where=str(path))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileInvalid("not UTF-8", where=f"{path}:{line}") from None


class _Loader:
    def __init__(self, path: Path, text: str, document: dict[str, Any]) -> None:
        self._path = path
        self._folder = Path(os.path.abspath(path)).parent
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
        return Profile(name=name, path=self._folder / self._path.name, resources=tuple(resources))

    def name(self) -> str:
        name = self._document.get("name", self._path.stem)
        if "name" not in self._document and not NAME.fullmatch(self._path.stem):
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
                hint=self._meant(backend, [AUTO, *backends]) or f"use one of: {choice}",
            )  # fmt: skip
        spec = self._decode(fields, spec_type, key)
        for where, message, hint in rules.faults(ref, spec):
            self._refuse(message, (*key, *where), hint=hint)
        try:
            spec = located.resolve(spec, self._folder)
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
                    meant = self._meant(
                        edge.provider.short if short else edge.provider.name,
                        [ref.short if short else ref.name for ref in sorted(same)],
                    )
                    self._refuse(
                        f"there is no {edge.provider.kind} {edge.provider.name!r} in this profile", _key_of(edge),
                        hint=meant or f"add [{edge.provider.kind}.{edge.provider.name}]",
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
                hint = self._meant(name, names) or f"known here: {', '.join(sorted(names))}"
                self._refuse(f"unknown {what}", (*key, name), hint=hint)

    @staticmethod
    def _meant(word: str, known: Iterable[str]) -> str:
        close = difflib.get_close_matches(word[:80], list(known)[:1000], n=1, cutoff=0.6)
        return f"did you mean {close[0]!r}?" if close else ""

    def _where(self, key: Key) -> str:
        return f"{self._path}:{self._positions.line(*key)}"

    def _refuse(self, message: str, key: Key, *, hint: str = "") -> NoReturn:
        raise ProfileInvalid(message, where=self._where(key), key=rules.dotted(key), hint=hint)


def _key_of(edge: graph.Edge) -> Key:
    return (edge.consumer.kind, edge.consumer.name, edge.field, edge.index)
