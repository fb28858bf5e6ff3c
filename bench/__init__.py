"""Measured comparisons with peers: `make bench` prints one table. Ratios within one run, never asserted times."""
