"""argv to one front end, imported inside its branch: `--version` costs little more than Python itself."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point `vmtui`. Ends the process with one of the codes of headless/exit_codes.py."""
    argv = sys.argv[1:]
    if argv in (["--version"], ["-V"]):
        import vmtui

        sys.stdout.write(f"{vmtui.__version__}\n")
        return
    if not argv and sys.stdin.isatty() and sys.stdout.isatty():
        import importlib.util

        if importlib.util.find_spec("vmtui.tui") is not None:
            from importlib import import_module

            sys.exit(import_module("vmtui.tui.app").run())
    from vmtui.headless import arguments

    sys.exit(arguments.run(argv))
