"""The WASM host program, `python -m vmtui.sandbox`: one module, one confined process, one small monitor.

`__main__` (the launcher) reads one configuration as JSON from stdin, compiles what the cache lacks in a confined
child, forks the monitor and ends when the module runs. The monitor keeps the log, the clock and the result; it never
touches the module's bytes. The guest is its child: it gives up everything it can before it looks at the module, and
talks to the monitor over `wire` alone.
"""
