"""argv to one front end, imported inside its branch: `--version` costs little more than Python itself."""

from __future__ import annotations

import os
import sys

DUMB = ("", "dumb", "unknown")  # values of TERM that tell of no screen


def main() -> None:
    """The entry point `vmtui`. Ends the process with one of the codes of headless/exit_codes.py."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    argv = sys.argv[1:]
    if argv in (["--version"], ["-V"]):
        import vmtui

        sys.stdout.write(f"{vmtui.__version__}\n")
        return
    try:
        code = _front_end(argv)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # a reader of --help or a schema that has seen enough; the rest of it has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _open_streams() -> None:
    """Those that were closed: their numbers must not become those of a database, a log or a connection."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.dup2(fd, number)
            if fd != number:
                os.close(fd)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _front_end(argv: list[str]) -> int:
    screen = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in DUMB
    if not argv and screen:
        return _panel()
    from vmtui.headless import arguments, commands

    where, args = arguments.parse(argv)
    if where == arguments.PANEL and screen:
        return _panel(read_only=args.read_only, demo=args.demo)
    if where == commands.SERVE:
        from vmtui.ssh import serve

        return serve.main(args)
    return arguments.call(where, args)


def _panel(*, read_only: bool = False, demo: int | None = None) -> int:
    import gc

    gc.disable()  # until the panel is there: what is imported and made now stays
    from vmtui.headless import exit_codes
    from vmtui.host.faults import Fault
    from vmtui.tui import app
    from vmtui.tui.text import plain

    try:
        app.run(read_only=read_only, demo=demo)
    except Fault as fault:
        hint = f"\nhint: {plain(fault.hint)}" if fault.hint else ""
        sys.stderr.write(f"error: {plain(str(fault))}{hint}\n")
        return exit_codes.of(fault)
    except Exception as error:
        sys.stderr.write(f"error: {plain(f'{type(error).__name__}: {error}')}\nhint: {app.REPORT}\n")
        return exit_codes.of(error)
    return 0
