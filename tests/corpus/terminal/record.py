"""Makes the corpus anew: streams of real programs on an 80x24 pty, and what tmux shows of each.

    .venv/bin/python tests/corpus/terminal/record.py [NAME ...]

Needs root, tmux, vim, htop, less, mc, procps and bash. Each NAME.stream.gz is what the program wrote; NAME.screen is
tmux's `capture-pane -pe` of it, after a line with the cursor and whether the alternate screen is on.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROWS, COLUMNS = 24, 80
QUIET_S = 0.5
ENVIRONMENT = {
    "TERM": "xterm-256color",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PS1": r"\[\e[1;32m\]guest\[\e[0m\]:\w\$ ",
    "HISTFILE": "",
    "LESSHISTFILE": "-",
}


@dataclass(frozen=True)
class Recording:
    """What is typed, a key sequence at a time, and how long a program that never is quiet is watched."""

    argv: list[str]
    keys: list[bytes] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    longest_s: float = 3.0


WIDE = (
    "日本語のテキスト、全角と半角ｶﾅ。\n한국어 문장입니다. 中文字符测试。\nüñïçödé e\u0301 a\u0308o\u0302 combining\n"
    "😀 😃 emoji 🚀 👩\u200d👩\u200d👧 👍🏽 🇩🇪🇫🇷 ❤\ufe0f 1\ufe0f\u20e3 end\n"
    "नमस्ते ไทย ที่ עִבְרִית한\nbox ┌─┬─┐ │ └─┴─┘ █▓▒░\n" + "漢" * 45 + "|\n" + "x" * 79 + "漢 wraps\nмир κόσμος עולם العالم\n"  # noqa: RUF001
)
NUMBERED = "".join(
    f"{number:4} the quick brown fox jumps over the lazy dog {'=' * (number % 40)}\n" for number in range(300)
)
CODE = "".join(f"def function_{number}(argument):\n    return {number} + argument  # note\n\n" for number in range(60))
BASH = ["bash", "--norc", "--noprofile"]
# In a PID namespace of its own, so that the recording shows nothing of the machine but these.
ALONE = ["unshare", "--fork", "--pid", "--mount-proc", "bash", "-c"]
SLEEPERS = "for name in alpha beta gamma; do (exec -a $name sleep 60) & done"
ESC = b"\x1b"
RECORDINGS = {
    "vi": Recording(
        ["vim", "-u", "NONE", "-N", "-c", "syntax on", "-c", "set number nofixeol", "code.py"],
        [b"10j", b"O# inserted line", ESC, b"5dd", b"/function_30\r", b"ddp", b":split\r", b"\x06", b"ixyz"],
        {"code.py": CODE},
    ),
    "vi-exit": Recording(
        [*BASH], [b"vim -u NONE -N code.py\r", b"20jdd", b"Gox", ESC, b":q!\r", b"echo back\r"], {"code.py": CODE}
    ),
    "less": Recording(
        ["less", "-N", "numbers"], [b" ", b" ", b"/ 55 \r", b"kkk", b"G", b"b", b"u"], {"numbers": NUMBERED}
    ),
    "less-exit": Recording([*BASH], [b"less numbers\r", b"   ", b"q", b"echo back\r"], {"numbers": NUMBERED}),
    "htop": Recording([*ALONE, f"{SLEEPERS}; exec htop -d 5"], [b"\x1b[B\x1b[B", b"\x1b[B", b"t"], longest_s=2.0),
    "top": Recording([*ALONE, f"{SLEEPERS}; exec top -d 0.5"], [b"1", b"c"], longest_s=1.5),
    "mc": Recording(
        ["mc", "-u", ".", "/usr"],
        [b"\x1b[B\x1b[B\x1b[B", b"\t", b"\x1b[B", b"\x1b[20~", b"\x1b[C", b"\x1b[B"],
        environment={"HOME": "/tmp"},
    ),
    "mc-exit": Recording(
        [*BASH], [b"mc -u /usr .\r", b"\x1b[B\x1b[B", b"\x1b[21~", b"\r", b"echo back\r"], environment={"HOME": "/tmp"}
    ),
    "wide": Recording([*BASH], [b"cat wide\r", b"cat wide wide | tail -n 9\r"], {"wide": WIDE}),
    "editing": Recording(
        [*BASH],
        [
            b"echo one two three four",
            b"\x01\x06\x06\x04\x04\x05\x17\x17",
            b" " + b"long " * 30,
            b"\x1bb\x1bb\x1bbinserted ",
            b"\x01",
            b"\x0b\x19",
            b"\r",
            b"for i in 1 2 3; do\r",
            b"printf '%s\\t|\\n' $i; done\r",
            b"printf '\\e[31mred\\e[0m \\e[1;44mbold on blue\\e[0m \\e[38;5;208mx\\e[38;2;1;2;3my\\e[7mz\\e[0m\\n'\r",
            b"ls -la --color /usr\r",
        ],
    ),
    "tmux": Recording(
        [*BASH],
        [
            b"tmux -S ./server -f conf\r",
            b"head -n 4 numbers\r",
            b"\x02%",
            b"head -n 30 numbers\r",
            b'\x02"',
            b"echo \xe6\xbc\xa2\r",
            b"\x02o",
        ],
        {
            "numbers": NUMBERED,
            "conf": "set -g exit-unattached on\nset -g destroy-unattached on\nset -g status-right ''\n",
        },
    ),
    "vt220": Recording(
        [*BASH],
        [b"vim -u NONE -N numbers\r", b"10j", b"ix", ESC, b":q!\r", b"less numbers\r", b" ", b"q"],
        {"numbers": NUMBERED},
        {"TERM": "vt220"},
    ),
    "linux": Recording(
        [*BASH],
        [b"vim -u NONE -N -c 'syntax on' code.py\r", b"10j", b"dd", b":q!\r", b"head -n 30 code.py\r"],
        {"code.py": CODE},
        {"TERM": "linux"},
    ),
}


def record(recording: Recording) -> bytes:
    """What the program writes until it has been quiet after the last key."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in recording.files.items():
            Path(directory, name).write_text(text)
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(directory)
            os.execvpe(recording.argv[0], recording.argv, {**ENVIRONMENT, **recording.environment})
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        try:
            stream = drain(master, recording.longest_s)
            for keys in recording.keys:
                os.write(master, keys)
                stream += drain(master, recording.longest_s)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(master)
    return stream


def drain(master: int, longest_s: float) -> bytes:
    """All that comes until nothing has for a while."""
    data = b""
    until = time.monotonic() + longest_s
    while time.monotonic() < until and select.select([master], [], [], QUIET_S)[0]:
        try:
            data += os.read(master, 65536)
        except OSError:  # EIO: it has ended
            break
    return data


def tmux(server: Path, *arguments: str) -> str:
    command = ["tmux", "-S", str(server), "-f", "/dev/null", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shown(stream: bytes) -> str:
    """tmux's screen of a stream: a head line, then its rows."""
    with tempfile.TemporaryDirectory() as directory:
        file, done, server = (Path(directory, name) for name in ("stream", "done", "server"))
        file.write_bytes(stream)
        command = f"stty raw -echo; cat {shlex.quote(str(file))}; touch {shlex.quote(str(done))}; exec sleep 60"
        tmux(server, "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "sleep 60")
        try:
            tmux(server, "set-option", "-g", "status", "off")
            tmux(server, "set-option", "-g", "default-terminal", "tmux-256color")
            tmux(server, "respawn-pane", "-k", command)
            until = time.monotonic() + 20
            while not done.exists() and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(QUIET_S)
            head = tmux(server, "display-message", "-p", "cursor #{cursor_x} #{cursor_y} alternate #{alternate_on}")
            size = tmux(server, "display-message", "-p", "#{pane_width}x#{pane_height}").strip()
            if size != f"{COLUMNS}x{ROWS}":
                raise RuntimeError(f"tmux made the pane {size}")
            return head + tmux(server, "capture-pane", "-pe")
        finally:
            tmux(server, "kill-server")


def main(names: list[str]) -> None:
    for name in names or RECORDINGS:
        stream = record(RECORDINGS[name])
        (HERE / f"{name}.stream.gz").write_bytes(gzip.compress(stream, 9, mtime=0))
        (HERE / f"{name}.screen").write_text(shown(stream))
        print(f"{name}: {len(stream)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
