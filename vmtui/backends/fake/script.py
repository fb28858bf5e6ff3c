"""Scripted faults: what a test, or the resource's own options, make an action do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from vmtui.backends.fake.options import FakeOptions
from vmtui.core.errors import Fault, OperationFailed
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Ref

Call = Action | str  # actions, and the methods that are none: "scan", "inspect", "add_port", …


@dataclass(frozen=True, slots=True)
class Effect:
    """In this order: hang, fail; or succeed and then break or vanish."""

    hang_s: float = 0.0
    error: Fault | None = None
    breaks: bool = False
    vanishes: bool = False


NOTHING = Effect()


@dataclass(slots=True)
class Rule:
    call: Call
    ref: Ref | None
    effect: Effect
    times: int | None


class Script:
    """The rules of one backend instance and, if `counting`, how often it got each call for each resource."""

    def __init__(self, *, counting: bool = True) -> None:
        self._counting = counting
        self.calls: Counter[tuple[Call, Ref | None]] = Counter()
        self._rules: list[Rule] = []

    def on(self, call: Call, effect: Effect, *, ref: Ref | None = None, times: int | None = 1) -> None:
        """The next `times` calls (None: all), of `ref` alone or of any, have `effect`."""
        self._rules.append(Rule(call, ref, effect, times))

    def take(self, call: Call, ref: Ref | None, options: FakeOptions | None) -> Effect:
        """Count a call and say what happens to it: the first rule that fits, else what the options say."""
        if self._counting:
            self.calls[call, ref] += 1
        for rule in self._rules:
            if rule.call == call and rule.ref in (None, ref) and rule.times != 0:
                if rule.times is not None:
                    rule.times -= 1
                return rule.effect
        return _from_options(call, ref, options) if options is not None and isinstance(call, Action) else NOTHING


def _from_options(action: Action, ref: Ref | None, options: FakeOptions) -> Effect:
    effect = NOTHING
    if action in options.hang_on:
        effect = replace(effect, hang_s=float(options.hang_for))
    if action in options.fail_on:
        effect = replace(effect, error=OperationFailed(f"{action} {ref}: {options.fail_with}"))
    return replace(effect, breaks=action in options.break_on, vanishes=action in options.vanish_on)
