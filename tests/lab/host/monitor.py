"""What QEMU says of a machine that does not go on: where its processors are, and which interrupts wait for them.

At last the machine's kernel is made to say on its console what it was at, and to end: an NMI reaches it in any state.
"""

from __future__ import annotations

import json
import re
import socket
from typing import BinaryIO

TIMEOUT_S = 10.0  # for one answer; after the first that does not come nothing more is asked
LAST_WORDS_S = 20.0
QUESTIONS = (
    "info status",
    "info registers -a",
    "info registers -a",  # a second look: does it go anywhere
    "info lapic 0",
    "info lapic 1",
    "info irq",
    "info pic",
)
# The registers of the FPU and of SSE fill pages, and say nothing of why.
_NOISE = re.compile(r"^(FCW|FPR|MXCSR|Opmask|XMM|YMM|ZMM).*\n", re.MULTILINE)


def state(connection: socket.socket) -> str:
    """The answers, as text, of the QEMU at the other end of a fresh connection for QMP. Never raises.

    Afterwards the machine is down, or as good as.
    """
    said = ""
    connection.settimeout(TIMEOUT_S)
    try:
        with connection.makefile("rb") as answers:
            answers.readline()  # the greeting
            _asked(connection, answers, "qmp_capabilities")
            for question in QUESTIONS:
                answer = _asked(connection, answers, "human-monitor-command", **{"command-line": question})
                said += f"(qemu) {question}\n" + _NOISE.sub("", answer.replace("\r", ""))
            said += _ended(connection, answers)
    except (OSError, ValueError) as error:
        said += f"QEMU does not answer: {error}\n"
    return said


def _ended(connection: socket.socket, answers: BinaryIO) -> str:
    """What is to be said of that. Raises OSError, ValueError as _asked does."""
    _asked(connection, answers, "inject-nmi")
    connection.settimeout(LAST_WORDS_S)
    try:
        answers.read()
    except TimeoutError:
        return "an NMI does not end it\n"
    except ConnectionError:
        pass
    return "an NMI ended it\n"


def _asked(connection: socket.socket, answers: BinaryIO, command: str, **arguments: str) -> str:
    """Raises OSError (no answer in time, it is gone), ValueError (it speaks something else)."""
    connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    while line := answers.readline():
        answer = json.loads(line)
        if "event" not in answer:
            return str(answer.get("return", answer))
    raise ConnectionError("it is gone")
