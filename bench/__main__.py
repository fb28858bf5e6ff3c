"""`make bench`: every figure, each beside its peer, in one table."""

from __future__ import annotations

import sys

from bench import console, containers, logs, panel, planning, query, startup
from bench.measure import Row, table
from bench.ssh import figures
from bench.vmm import blk, boot, net, start


def main() -> None:
    rows: list[Row] = []
    for part in (startup, planning, query, containers, panel, console, logs, figures, start, blk, net, boot):
        for row in part.rows():
            print(f"  {row.what}: {row.ours}", file=sys.stderr)
            rows.append(row)
    print(table(rows))


main()
