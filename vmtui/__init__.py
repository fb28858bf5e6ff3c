"""vmtui: one terminal workstation manager for everything that a Linux machine virtualises."""

__version__ = "0.1.0"
