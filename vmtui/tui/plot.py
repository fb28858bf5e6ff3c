"""A measurement over time as rows of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def plot(values: Sequence[float | None], width: int, height: int, top: float, glyphs: str) -> list[str]:
    """`height` rows of `width` cells, the newest value at the right; `glyphs` are the levels of one cell, low first."""
    recent = list(values)[-width:]
    shown: list[float | None] = [*[None] * (width - len(recent)), *recent]
    steps = len(glyphs)
    full = height * steps
    levels = [
        None if value is None or top <= 0 else max(1, min(full, round(value / top * full))) if value > 0 else 0
        for value in shown
    ]
    rows = []
    for row in range(height - 1, -1, -1):
        below = row * steps
        rows.append("".join(" " if level is None else _cell(level - below, steps, glyphs) for level in levels))
    return rows


def _cell(level: int, steps: int, glyphs: str) -> str:
    return " " if level <= 0 else glyphs[min(level, steps) - 1]


def nice(top: float) -> float:
    """The next 1, 2 or 5 times a power of ten, so that an axis does not jump about."""
    if top <= 0:
        return 1.0
    power: float = 10.0 ** _exponent(top)
    return next((step * power for step in (1, 2, 5) if step * power >= top), 10 * power)


def _exponent(value: float) -> int:
    exponent = 0
    while value >= 10:
        value /= 10
        exponent += 1
    while value < 1:
        value *= 10
        exponent -= 1
    return exponent
