"""`python -m bench.ssh`: the table of what the console over SSH costs."""

from __future__ import annotations

from bench.measure import table
from bench.ssh.figures import rows

if __name__ == "__main__":
    print(table([*rows()]))
