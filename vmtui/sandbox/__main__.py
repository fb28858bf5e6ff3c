"""`python -m vmtui.sandbox compile|run`: the configuration on stdin, one message about the outcome on stdout.

`compile` sees that the module is fit and fills the cache. `run` does the same, starts the module and returns while it
runs. Code 0, or 1 with `{"event": "failed", "code": WORD, "message": TEXT}`.
"""

from __future__ import annotations

import os
import sys

from vmtui.sandbox.config import parse
from vmtui.sandbox.launcher import Failed, compiled, launch
from vmtui.walls.calls import die_with_parent
from vmtui.wire.lines import Message, WireError, encode

MAX_CONFIG_BYTES = 4 << 20


def main() -> int:
    answer: Message
    try:
        die_with_parent()
        config = parse(sys.stdin.buffer.read(MAX_CONFIG_BYTES))
        if os.getppid() != config.parent:
            return 1
        os.umask(0o077)
        facts = launch(config) if sys.argv[1:] == ["run"] else compiled(config)[1]
        answer = {"event": "done", **facts}
    except Failed as failure:
        answer = failure.message
    except (OSError, ValueError, WireError) as error:
        answer = {"event": "failed", "code": "host", "message": str(error)[:8000]}
    sys.stdout.buffer.write(encode(answer))
    sys.stdout.buffer.flush()
    return 0 if answer["event"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
