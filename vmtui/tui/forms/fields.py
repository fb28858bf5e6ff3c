"""The fields of a form, found in the types of specs and of backends' options, whoever wrote them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from typing import Any

import msgspec
from msgspec import inspect

from vmtui.core.resource import Kind
from vmtui.core.specs import AUTO, SPECS, Spec, Workload
from vmtui.core.units import Duration, Mount, Publish, ReadOnlyMount, Size
from vmtui.profile import descriptions, graph, rules, written
from vmtui.profile.schema import OptionTypes

Path = tuple[str, ...]
Options = Mapping[str, type[msgspec.Struct] | None]


class Shape(Enum):
    """How a value is typed in."""

    TEXT = auto()
    NUMBER = auto()
    QUANTITY = auto()  # a number, or a text with a unit
    CHOICE = auto()
    WORDS = auto()  # a list on one line, between commas
    LINES = auto()  # a list, one item a line
    PAIRS = auto()  # a table of texts, KEY=VALUE a line
    TOML = auto()  # what no other shape fits


class Section(StrEnum):
    """Where a field stands in the form. Those of backends follow, each with its name."""

    OWN = ""
    LIFE = "life"
    ALL = "for people and tools"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `path` is below [KIND.NAME]; `default` a plain TOML value, None: nothing; `item` the shape of items.

    `refers_to` is the field of graph.REFERENCES that it is.
    """

    path: Path
    shape: Shape
    type: Any
    says: str
    section: str = Section.OWN
    about: str = ""
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    item: Shape = Shape.TEXT
    refers_to: str = ""

    @property
    def label(self) -> str:
        return ".".join(self.path[1:] if self.section not in (Section.OWN, Section.LIFE, Section.ALL) else self.path)


WORDS_FOR: dict[type, str] = {
    Size: 'a size, as "512MiB"',
    Duration: 'a time, as "30s"',
    Publish: "ports, as 8080:80, 127.0.0.1:53:53/udp",
    Mount: "one a line, as ./folder:/target:ro",
    ReadOnlyMount: "one a line, as ./folder:/target:rw",
}
ON_ONE_LINE = (Publish,)


def fields_of(kind: Kind, option_types: OptionTypes) -> tuple[Field, ...]:
    """The form of a kind: its spec, then the sub-table of each of its backends that can be loaded."""
    backends = option_types(kind)
    spec_type = SPECS[kind]
    every = struct_fields(spec_type, about=descriptions.of)
    found = [_choices_of_backends(field, backends) for field in every if _possible(field, kind)]
    order = [Section.OWN, Section.READY, Section.LIFE, Section.ALL]
    found.sort(key=lambda field: order.index(Section(field.section)))
    return (*found, *_of_backends(backends))


def _possible(field: Field, kind: Kind) -> bool:
    """Only some kinds can be asked whether they are ready, and not each in every way."""
    possible = rules.READY[kind]
    return field.section != Section.READY or (
        bool(possible) and field.path[-1] not in set(rules.CONDITIONS) - {*possible}
    )


def _choices_of_backends(field: Field, backends: Options) -> Field:
    if field.path != ("backend",):
        return field
    return replace(field, shape=Shape.CHOICE, choices=(AUTO, *sorted(backends)), says="a backend", section=Section.OWN)


def _of_backends(backends: Options) -> Iterator[Field]:
    for name in sorted(backends):
        try:
            options = backends[name]
        except ImportError:  # its backend cannot be used, so neither can its options
            continue
        if options is not None:
            yield from struct_fields(options, (name,), section=name, about=_first_line)


def struct_fields(
    struct: type[msgspec.Struct],
    path: Path = (),
    *,
    section: str = Section.OWN,
    about: Callable[[type, str], str] = lambda kind, name: "",  # noqa: ARG005
) -> Iterator[Field]:
    """The fields of any struct, those of structs in it too."""
    shapes = {field.name: field.type for field in _info(struct).fields}
    for info in written.in_order(struct):
        here = (*path, info.encode_name)
        default = None if info.required else written.toml(written.default(info))
        field = Field(
            path=here, shape=Shape.TOML, type=info.type, says="a TOML value", about=about(struct, info.name),
            section=section or _section(struct, info.name), default=default, required=info.required,
        )  # fmt: skip
        kinds = _without_none(shapes[info.name])
        inner = kinds[0]
        if len(kinds) == 1 and isinstance(inner, inspect.StructType) and inner.tag is None and not inner.array_like:
            yield from struct_fields(inner.cls, here, section=section or info.name, about=about)
        else:
            yield _shaped(field, kinds)


def _first_line(struct: type, name: str) -> str:  # noqa: ARG001
    return (struct.__doc__ or "").strip().partition("\n")[0]


def _section(struct: type, name: str) -> str:
    if not issubclass(struct, Spec):
        return Section.OWN
    if name in Spec.__struct_fields__:
        return Section.ALL
    return Section.LIFE if name in Workload.__struct_fields__ else Section.OWN


def _info(struct: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info


def _without_none(kind: inspect.Type) -> list[inspect.Type]:
    kinds = list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]
    kinds = [each.type if isinstance(each, inspect.Metadata) else each for each in kinds]
    return [each for each in kinds if not isinstance(each, inspect.NoneType)] or kinds


def _shaped(field: Field, kinds: list[inspect.Type]) -> Field:
    """The field with the shape of its type. `kinds` are the types of a union."""
    if field.path[-1:] and (field.path[-1] in graph.REFERENCES and len(field.path) == 1):
        kind = graph.REFERENCES[field.path[0]]
        says = "KIND/NAME, …" if kind is None else f"names of {kind}s, between commas"
        return replace(field, shape=Shape.WORDS, says=says, refers_to=field.path[0])
    if len(kinds) > 1:
        shapes = {_shaped(field, [kind]).shape for kind in kinds}
        if shapes <= {Shape.TEXT, Shape.NUMBER, Shape.QUANTITY}:
            shape = Shape.NUMBER if shapes == {Shape.NUMBER} else Shape.QUANTITY
            return replace(field, shape=shape, says="a number" if shape is Shape.NUMBER else "a number or a text")
        return field
    return _of_one(field, kinds[0])


def _of_one(field: Field, kind: inspect.Type) -> Field:
    match kind:
        case inspect.BoolType():
            return replace(field, shape=Shape.CHOICE, choices=("true", "false"), says="yes or no")
        case inspect.IntType():
            return replace(field, shape=Shape.NUMBER, says=f"a whole number{_range(kind)}")
        case inspect.FloatType():
            return replace(field, shape=Shape.NUMBER, says=f"a number{_range(kind)}")
        case inspect.StrType():
            return replace(field, shape=Shape.TEXT, says="a text")
        case inspect.EnumType():
            return replace(
                field, shape=Shape.CHOICE, choices=tuple(str(each.value) for each in kind.cls), says="one of"
            )
        case inspect.LiteralType() if all(isinstance(value, str) for value in kind.values):
            return replace(field, shape=Shape.CHOICE, choices=tuple(map(str, kind.values)), says="one of")
        case inspect.CustomType():
            shape = Shape.QUANTITY if kind.cls in (Size, Duration) else Shape.TEXT
            return replace(field, shape=shape, says=WORDS_FOR.get(kind.cls, "a text"))
        case inspect.VarTupleType() | inspect.ListType() | inspect.SetType() | inspect.FrozenSetType():
            return _list(field, kind.item_type)
        case inspect.DictType(key_type=inspect.StrType(), value_type=inspect.StrType()):
            return replace(field, shape=Shape.PAIRS, says="KEY=VALUE, one a line")
    return field


def _list(field: Field, kind: inspect.Type) -> Field:
    kinds = _without_none(kind)
    item = _shaped(replace(field, path=("",)), kinds)
    if item.shape in (Shape.LINES, Shape.WORDS, Shape.PAIRS, Shape.TOML):
        return field
    if item.shape is Shape.CHOICE:
        return replace(field, shape=Shape.WORDS, choices=item.choices, says="of these, between commas")
    custom = kinds[0].cls if isinstance(kinds[0], inspect.CustomType) else None
    if item.shape is not Shape.TEXT or custom in ON_ONE_LINE:
        says = WORDS_FOR.get(custom, f"{item.says}, several between commas") if custom else f"{item.says}s"
        return replace(field, shape=Shape.WORDS, item=item.shape, says=says)
    return replace(field, shape=Shape.LINES, says=WORDS_FOR.get(custom, "one a line") if custom else "one a line")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    low, high = kind.ge, kind.le
    if isinstance(kind, inspect.IntType):
        low = low if kind.gt is None else kind.gt + 1
        high = high if kind.lt is None else kind.lt - 1
    elif kind.gt is not None:
        return f" above {kind.gt:g}"
    if high is None:
        return "" if low is None else f" from {low}"
    return f" up to {high}" if low is None else f" from {low} to {high}"
