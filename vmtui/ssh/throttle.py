"""What strangers may cost: a delay that grows with failures, and a place for so many who have not proved a key.

Nobody is locked out: a delay holds back the answer to a failure and nothing else, and whoever waits in a full room
makes place for who comes.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
FORGIVEN_AFTER_S = 10.0  # one failure each
MOST_ADDRESSES = 10_000
W = TypeVar("W", bound=Hashable)


def neighbourhood(address: str) -> str:
    """What counts as one place: an address, of IPv6 the /64 that one subscriber has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class Throttle:
    """How long the answer to a failure waits, by where it came from."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[float, float]] = {}  # how many, as of when; the last to fail is at the end

    def failed(self, address: str) -> float:
        """Count one; the seconds that its answer waits."""
        place, now = neighbourhood(address), self._clock()
        count = self._count(place, now) + 1
        self._failures.pop(place, None)
        if len(self._failures) >= MOST_ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures[place] = (count, now)
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * float(2.0 ** min(count - 1, 16)))

    def forgive(self, address: str, failures: int) -> None:
        """Of who has proved a key after all: other keys that they have are no attack."""
        place, now = neighbourhood(address), self._clock()
        if place in self._failures:
            self._failures[place] = (max(0.0, self._count(place, now) - failures), now)

    def count(self, address: str) -> int:
        """Failures from there that are not forgiven yet."""
        return int(self._count(neighbourhood(address), self._clock()))

    def _count(self, place: str, now: float) -> float:
        count, since = self._failures.get(place, (0.0, now))
        return max(0.0, min(count, 32.0) - (now - since) / FORGIVEN_AFTER_S)


@dataclass(slots=True)
class _Waiting:
    place: str
    spoke: bool = False


@dataclass(slots=True)
class WaitingRoom(Generic[W]):
    """Those who have not proved a key. In a full one the silent go first, then the oldest, and never the newest."""

    most: int
    most_of_one_place: int
    _waiting: dict[W, _Waiting] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[W]:
        return iter([*self._waiting])

    def enter(self, who: W, address: str) -> list[W]:
        """Those who must leave for it."""
        place = neighbourhood(address)
        self._waiting[who] = _Waiting(place)
        out = []
        if sum(other.place == place for other in self._waiting.values()) > self.most_of_one_place:
            out.append(self._evict(who, place))
        if len(self._waiting) > self.most:
            crowd = [other.place for other in self._waiting.values()]
            out.append(self._evict(who, max(set(crowd), key=crowd.count)))
        return out

    def _evict(self, newest: W, place: str) -> W:
        others = [(was.spoke, who) for who, was in self._waiting.items() if who != newest and was.place == place]
        if not others:
            others = [(was.spoke, who) for who, was in self._waiting.items() if who != newest]
        who = next((who for spoke, who in others if not spoke), others[0][1])
        del self._waiting[who]
        return who

    def spoke(self, who: W) -> None:
        """It said something: who says nothing at all leaves before it."""
        if who in self._waiting:
            self._waiting[who].spoke = True

    def leave(self, who: W) -> None:
        """It has proved a key, or is gone. Not being there is fine."""
        self._waiting.pop(who, None)
