"""JSON Schemas of profiles, settings, serve.toml and the records of `--json`, made from the types themselves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from functools import cache, partial
from typing import Any, TypeVar

import msgspec

from vmtui.core.events import AnyEvent
from vmtui.core.policy import APPROVABLE, EVERY, Allow, Role, Verb
from vmtui.core.resource import NAME, Kind
from vmtui.core.specs import SPECS, Ready
from vmtui.core.units import Duration, Mount, Publish, ReadOnlyMount, Size
from vmtui.profile import descriptions
from vmtui.profile.schema import OptionTypes
from vmtui.profile.serving import Serve, WebSettings
from vmtui.profile.settings import Settings

T = TypeVar("T")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{name}"
NAME_PATTERN = f"^{NAME.pattern}$"
# Units as they are written in TOML; the loader's own parsers say the last word.
UNITS: dict[type, dict[str, Any]] = {
    Size: {
        "description": 'A size: a number of bytes, or "512MiB", "2GiB", "10GB".',
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([KMGTkmgt]i?[Bb]?|[Bb])?$"},
        ],
    },
    Duration: {
        "description": 'A time: a number of seconds, or "500ms", "30s", "1m30s".',
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"},
        ],
    },
    Publish: {
        "description": 'A published port: "8080:80", "127.0.0.1:8080:80", "5353:53/udp".',
        "type": "string",
        "pattern": r"^(\d+\.\d+\.\d+\.\d+:)?\d+:\d+(/(tcp|udp))?$",
    },
    Mount: {
        "description": 'A mount: "./folder:/target", "volume:/target", with ":ro" or ":rw".',
        "type": "string",
        "pattern": r"^[^:]+:/[^:]*(:(ro|rw))?$",
    },
    ReadOnlyMount: {
        "description": 'A folder: "./folder:/target", read-only unless ":rw" is added.',
        "type": "string",
        "pattern": r"^[^:]+:/[^:]*(:(ro|rw))?$",
    },
}


def profile(option_types: OptionTypes) -> dict[str, Any]:
    """The schema of a profile, with the sub-tables of all backends that are installed."""
    options = {(kind, name): _options_type(option_types, kind, name) for kind in Kind for name in option_types(kind)}
    tables = [kind_type for kind_type in dict.fromkeys(options.values()) if kind_type is not None]
    types = [*SPECS.values(), *tables]
    schemas, definitions = msgspec.json.schema_components(types, schema_hook=_unit, ref_template=REFERENCE)
    places = dict(zip(types, schemas, strict=True))
    for definition in definitions.values():
        for name, schema in definition.get("properties", {}).items():
            definition["properties"][name] = _without_null(schema)
    _describe(definitions, (*SPECS.values(), Ready))
    properties: dict[str, Any] = {
        "name": {"type": "string", "pattern": NAME_PATTERN, "description": "The file's name without .toml if absent."}
    }
    for kind, spec_type in SPECS.items():
        definition = definitions[spec_type.__name__]
        names = [name for of, name in options if of is kind]
        definition["properties"]["backend"]["enum"] = ["auto", *sorted(names)]
        for name in sorted(names):
            if (kind_type := options[kind, name]) is not None:
                about = f"What only the backend {name} knows."
                definition["properties"][name] = {**places[kind_type], "description": about}
        properties[kind] = {
            "type": "object",
            "description": f"[{kind}.NAME] tables.",
            "propertyNames": {"pattern": NAME_PATTERN},
            "additionalProperties": places[spec_type],
        }
    return {
        "$schema": DIALECT,
        "title": "vmtui profile",
        "description": "An environment of virtual machines, containers, WASM sandboxes, networks and disks.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _options_type(option_types: OptionTypes, kind: Kind, name: str) -> type[msgspec.Struct] | None:
    try:
        found = option_types(kind)[name]
    except ImportError:  # one broken backend does not take the schema from the others
        return None
    return None if found is None else _without_unit_defaults(found)


@cache
def _without_unit_defaults(options: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same type, its defaults that are units made by functions: msgspec cannot write those down."""
    fields = msgspec.structs.fields(options)
    if not any(isinstance(field.default, tuple(UNITS)) for field in fields):
        return options
    made: list[Any] = []
    for field in fields:
        if isinstance(field.default, tuple(UNITS)):
            made.append((field.name, field.type, msgspec.field(default_factory=partial(_same, field.default))))
        elif field.default is not msgspec.NODEFAULT:
            made.append((field.name, field.type, field.default))
        elif field.default_factory is not msgspec.NODEFAULT:
            made.append((field.name, field.type, msgspec.field(default_factory=field.default_factory)))
        else:
            made.append((field.name, field.type))
    twin = msgspec.defstruct(
        options.__name__, made, kw_only=True, forbid_unknown_fields=True, module=options.__module__
    )
    twin.__doc__ = options.__doc__
    return twin


def _same(value: T) -> T:
    return value


def events() -> dict[str, Any]:
    """The schema of one line of the output of `--json`."""
    (schema,), definitions = msgspec.json.schema_components([AnyEvent], schema_hook=_unit, ref_template=REFERENCE)
    title = "A record of vmtui's output: one line of NDJSON, the first a version, the last a summary."
    return {"$schema": DIALECT, "title": "vmtui events", "description": title, **schema, "$defs": definitions}


def config() -> dict[str, Any]:
    """The schema of the settings file."""
    _, definitions = msgspec.json.schema_components([Settings], schema_hook=_unit, ref_template=REFERENCE)
    properties = definitions["Settings"]["properties"]
    properties.update({name: _without_null(schema) for name, schema in properties.items()})
    _describe(definitions, [Settings])
    settings = definitions.pop("Settings")
    return {"$schema": DIALECT, **settings, "title": "vmtui settings", "$defs": definitions}


def serve() -> dict[str, Any]:
    """The schema of serve.toml."""
    (settings, role), definitions = msgspec.json.schema_components(
        [Serve, Role], schema_hook=_unit, ref_template=REFERENCE
    )
    _describe(definitions, (Serve, WebSettings, Allow))
    of_role = definitions[Role.__name__]
    del of_role["properties"]["name"]  # the table's own
    of_role["required"].remove("name")
    _describe(definitions, (Role,))
    of_role["properties"]["approval"]["items"] = {"enum": sorted(APPROVABLE)}
    definitions[Allow.__name__]["properties"]["verbs"]["items"] = {"enum": [*Verb, EVERY]}
    for definition in definitions.values():
        for name, schema in definition.get("properties", {}).items():
            definition["properties"][name] = _without_null(schema)
    return {
        "$schema": DIALECT,
        "title": "vmtui serve.toml",
        "description": "How vmtui serves its console, and the roles that people have there.",
        "type": "object",
        "properties": {
            "serve": settings,
            "role": {
                "type": "object",
                "description": "[role.NAME] tables.",
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": role,
            },
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def text(schema: dict[str, Any]) -> str:
    """As it is written to a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _unit(kind: type) -> dict[str, Any]:
    if kind in UNITS:
        return dict(UNITS[kind])
    raise NotImplementedError(f"no schema for {kind.__name__}")  # what msgspec expects of a hook


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: what may be absent is left out."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    if len(choices) == 1:
        return {**choices[0], **rest}
    return {**rest, "anyOf": choices} if choices else rest


def _describe(definitions: dict[str, Any], described: Iterable[type]) -> None:
    for spec_type in described:
        definition = definitions[spec_type.__name__]
        definition["description"] = inspect.cleandoc(spec_type.__doc__ or "").split("\n\n")[0]
        for field in msgspec.structs.fields(spec_type):
            if field.name not in definition["properties"]:
                continue
            schema = definition["properties"][field.name]
            schema["description"] = descriptions.of(spec_type, field.name)
            if field.default_factory is not msgspec.NODEFAULT and isinstance(field.default_factory(), tuple(UNITS)):
                schema["default"] = str(field.default_factory())
