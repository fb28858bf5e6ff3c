"""The rules of style sheets, parsed once in a process: where a panel has been drawn, its forks parse nothing anew."""

from __future__ import annotations

from typing import Any

from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.css.types import CSSLocation

MOST = 1000  # sources: several themes, of some fifty each

_parse = Stylesheet._parse_rules
_kept: dict[tuple[Any, ...], list[RuleSet]] = {}


def _parse_rules(
    sheet: Stylesheet,
    css: str,
    read_from: CSSLocation,
    is_default_rules: bool = False,
    tie_breaker: int = 0,
    scope: str = "",
) -> list[RuleSet]:
    """As Textual's, which keeps them too, but for one sheet, and not beyond a change of theme."""
    key = (_theme(sheet), css, read_from, is_default_rules, tie_breaker, scope)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= MOST:
            _kept.clear()
        found = _kept[key] = _parse(sheet, css, read_from, is_default_rules, tie_breaker, scope)
    return found


def _theme(sheet: Any) -> frozenset[tuple[str, str]]:
    """The variables that are in force, which the rules have in place of their names."""
    made_of, theme = getattr(sheet, "_vmtui_theme", (None, frozenset()))
    if made_of is not sheet._variables:
        theme = frozenset(sheet._variables.items())
        sheet._vmtui_theme = (sheet._variables, theme)
    return theme


def keep_parsed() -> None:
    """From now on, in this process. Twice is once."""
    Stylesheet._parse_rules = _parse_rules  # type: ignore[assignment, method-assign]
