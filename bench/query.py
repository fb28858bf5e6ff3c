"""The query language on 10,000 resources, as at each key in the panel's filter, beside a bare `in` on their text."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Row, median
from vmtui.core.lifecycle import Phase
from vmtui.core.query import parse
from vmtui.core.resource import Address, Fact, Kind, Ref, Status
from vmtui.core.searchable import Entry, Searchable

RESOURCES = 10_000
QUERIES = ("web-99", "nothing", "kind:container web-9", "!web-9")


def rows() -> Iterator[Row]:
    items: list[Searchable] = [Entry(_status(number), {}) for number in range(RESOURCES)]
    bare = median(lambda: [item for item in items if "web-9" in item.folded])
    for text in QUERIES:
        query = parse(text)
        ours = median(lambda query=query: query.select(items))  # type: ignore[misc]
        peer = f"in: {bare * 1000:.1f} ms"
        yield Row(f"query: {text!r} on {RESOURCES:,}", f"{ours * 1000:.1f} ms", peer, ours / bare, goal="10 ms")


def _status(number: int) -> Status:
    return Status(
        ref=Ref("dev", Kind.CONTAINER, f"web-{number}"),
        backend="oci",
        phase=Phase.RUNNING,
        addresses=(Address(network="lab", address=f"10.0.{number // 250}.{number % 250}"),),
        facts=(Fact(name="image", value="docker://docker.io/library/nginx"),),
    )
