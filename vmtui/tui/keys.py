"""The setting `keys`: other keys for actions, named by the ids of their bindings. What cannot be is told."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import REPLACED_KEYS, Keys, _character_to_key, key_to_character
from textual.screen import Screen

from vmtui.profile.document import meant

if TYPE_CHECKING:
    from vmtui.profile.settings import Settings

OURS = "vmtui.tui"
MODIFIERS = ("alt", "ctrl", "hyper", "meta", "shift", "super")  # in the order in which the parser of Textual names them
NAMED = {key.value for key in Keys if "+" not in key.value and "<" not in key.value} | set(REPLACED_KEYS)
ALIASES = {
    "esc": "escape", "return": "enter", "del": "delete", "ins": "insert", "pgup": "pageup", "pgdn": "pagedown",
    "spacebar": "space",
}  # fmt: skip


def normal(text: str) -> str:
    """Textual's name of one key, such as "ctrl+right_square_bracket" for "ctrl+]". Raises ValueError."""
    written = text.strip()
    *modifiers, key = f"{written[:-1]}plus".split("+") if written.endswith("+") else written.split("+")
    modifiers = sorted(modifier.strip().lower() for modifier in modifiers)
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            raise ValueError(f"{text!r} is not a key: {meant(modifier, MODIFIERS) or f'there is no {modifier!r}'}")
    key = key.strip()
    if len(key) > 1:
        key = ALIASES.get(key.lower(), key.lower())
        if key not in NAMED and key_to_character(key) is None:
            hint = meant(key, sorted(NAMED)) or "write it as x, ctrl+x, f1 or pageup"
            raise ValueError(f"{text!r} is not a key: {hint}")
    elif not key.isprintable() or not key:
        raise ValueError(f"{text!r} is not a key")
    elif modifiers == ["shift"] and key.isalpha():
        modifiers, key = [], key.upper()
    elif modifiers:
        key = key.lower()
    return "+".join([*modifiers, _character_to_key(key) if len(key) == 1 else key])


def several(text: str) -> list[str]:
    """The same for keys separated by commas. Raises ValueError."""
    return list(dict.fromkeys(normal(key if key.strip() else "") for key in text.split(",")))


def detach(settings: Settings) -> str:
    """The key that leaves a console; the one that ships if the one of the settings is none (`apply` says so)."""
    try:
        return normal(settings.detach_key)
    except ValueError:
        return normal(type(settings)().detach_key)


def apply(app: App[None], settings: Settings) -> list[str]:
    """Give `app` the keys of the settings; what is wrong with them, a line each. Right ones hold beside wrong ones."""
    problems = []
    try:
        normal(settings.detach_key)
    except ValueError as error:
        problems.append(f"detach_key: {error}")
    if not settings.keys:
        return problems
    scopes = list(_scopes(type(app)))
    known = {binding.id for scope in scopes for binding in scope.bindings if binding.id}
    wanted: dict[str, list[str]] = {}
    for name, text in settings.keys.items():
        if name not in known:
            problems.append(f"keys.{name}: there is no such action ({meant(name, known) or 'the help screen has all'})")
            continue
        try:
            wanted[name] = several(text)
        except ValueError as error:
            problems.append(f"keys.{name}: {error}")
    app.set_keymap({name: ",".join(keys) for name, keys in (*_siblings(scopes, wanted), *wanted.items())})
    return problems + list(_clashes(scopes, wanted))


@dataclass(frozen=True, slots=True)
class _Scope:
    """A class of ours and the bindings it has, those of its bases included."""

    of: type[DOMNode]
    bindings: tuple[Binding, ...]

    @property
    def name(self) -> str:
        return getattr(self.of, "NAME", "") or self.of.__name__.removesuffix("Screen").lower()


def _scopes(app: type[App[None]]) -> Iterator[_Scope]:
    for module in pkgutil.walk_packages(importlib.import_module(OURS).__path__, f"{OURS}."):
        importlib.import_module(module.name)
    for of in (app, *_below(DOMNode)):
        found = tuple(
            binding
            for base in of.__mro__
            if base.__module__.startswith(OURS)
            for binding in Binding.make_bindings(base.__dict__.get("BINDINGS", ()))
        )
        if found and (of is app or (of.__module__.startswith(OURS) and not issubclass(of, App))):
            yield _Scope(of, found)


def _below(of: type[DOMNode]) -> Iterator[type[DOMNode]]:
    for child in of.__subclasses__():
        yield child
        yield from _below(child)


def _siblings(scopes: Iterable[_Scope], wanted: Mapping[str, object]) -> Iterator[tuple[str, list[str]]]:
    """What shares a key with an action that gets another: Textual's keymap would take the key from both."""
    for scope in scopes:
        lost = {binding.key for binding in scope.bindings if binding.id in wanted}
        for name in {binding.id for binding in scope.bindings if binding.key in lost} - set(wanted):
            if name is not None:
                yield name, [binding.key for binding in scope.bindings if binding.id == name]


def _clashes(scopes: Iterable[_Scope], wanted: Mapping[str, list[str]]) -> Iterator[str]:
    everywhere, *views = scopes
    places: dict[tuple[str, str, str], list[str]] = {}
    for scope in (everywhere, *views):
        both = (scope,) if scope is everywhere or not _over_app(scope.of) else (scope, everywhere)
        for key, rivals in _by_key(both, wanted).items():
            for at, (first, _) in enumerate(rivals):
                for second, _ in rivals[at + 1 :]:
                    if (first.id in wanted or second.id in wanted) and not _meant_to_share(both, first, second):
                        winner, loser = _ordered(first, second, rivals, wanted)
                        places.setdefault((key, _called(winner), _called(loser)), []).append(scope.name)
    for (key, wins, loses), names in places.items():
        where = "" if everywhere.name in names else f" on {', '.join(dict.fromkeys(names))}"
        yield f"keys: {key} is {wins} and {loses}{where}: {wins} wins"


def _over_app(of: type[DOMNode]) -> bool:
    """Whether the keys of the application count beside those of this class."""
    from textual.screen import ModalScreen

    return issubclass(of, Screen) and not issubclass(of, ModalScreen)


def _by_key(scopes: Iterable[_Scope], wanted: Mapping[str, list[str]]) -> dict[str, list[tuple[Binding, _Scope]]]:
    found: dict[str, list[tuple[Binding, _Scope]]] = {}
    for scope in scopes:
        for binding in scope.bindings:
            for key in wanted.get(binding.id or "", [binding.key]):
                rivals = found.setdefault(key, [])
                if all(rival.action != binding.action for rival, _ in rivals):
                    rivals.append((binding, scope))
    return found


def _meant_to_share(scopes: Iterable[_Scope], one: Binding, other: Binding) -> bool:
    """Whether they have a key in common as they ship: only one of them is possible at a time then."""
    keys = [
        {binding.key for scope in scopes for binding in scope.bindings if binding.action == either.action}
        for either in (one, other)
    ]
    return bool(keys[0] & keys[1])


def _ordered(
    first: Binding, second: Binding, rivals: list[tuple[Binding, _Scope]], wanted: Mapping[str, list[str]]
) -> tuple[Binding, Binding]:
    """The winner and the loser: priority, then the view before the application, then what the settings name."""
    scopes = {id(binding): scope for binding, scope in rivals}
    if first.priority != second.priority:
        return (first, second) if first.priority else (second, first)
    if scopes[id(first)] is not scopes[id(second)] or first.id in wanted:
        return first, second
    return second, first


def _called(binding: Binding) -> str:
    return binding.id or binding.action
