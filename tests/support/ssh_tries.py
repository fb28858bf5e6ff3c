"""What someone tries over SSH who may only look: every verb, what is none, and what would get past a shell."""

from __future__ import annotations

from collections.abc import Sequence

REF = "dev/container/web"
PROFILE = b"""
name = "dev"
[container.web]
backend = "fake"
image = "docker://other"
[container.new]
backend = "fake"
image = "docker://new"
"""
# Every verb, with each of its options by which it does more or other things.
LOOKING = ("ls", "inspect", "logs", "stats", "events", "plan", "doctor", "backends", "schema")
TRIES: dict[str, Sequence[str]] = {
    "ls": ("ls", "ls --plain", "ls --json", "ls -p dev -k vm", "ls -- -f web"),
    "inspect": ("inspect web", "inspect --exits guest", "inspect --json web"),
    "start": ("start web", "start --json web guest"),
    "stop": ("stop web", "stop --grace 0s web guest hello", "stop --json web"),
    "restart": ("restart web", "restart --grace 1s web"),
    "pause": ("pause web", "pause --json guest"),
    "resume": ("resume web",),
    "kill": ("kill web", "kill --json guest"),
    "rm": ("rm web", "rm --purge --yes data", "rm -y --purge --json guest"),
    "logs": ("logs web", "logs -n 1 -t --json web"),
    "exec": ("exec web -- touch x", "exec -it web -- sh", "exec -u root -w / -e A=b --json web -- id"),
    "console": ("console web", "console --json web"),
    "stats": ("stats", "stats --json web"),
    "events": ("events", "events -n 5 --json"),
    "plan": ("plan", "plan --json", "plan --recreate", "plan --only web --", "plan /etc/passwd", "plan /dev/zero"),
    "apply": ("apply", "apply --yes --recreate", "apply -y --only web --", "apply --json --on-failure keep --trace",
              "apply /etc/passwd", "apply --timeout 1s"),
    "down": ("down dev", "down dev --purge --yes", "down dev --only web --json"),
    "doctor": ("doctor", "doctor --json"),
    "backends": ("backends", "backends --json"),
    "schema": ("schema", "schema config", "schema events --json"),
    "serve": ("serve", "serve --demo", "serve --check", "serve --rotate-host-key", "serve --web", "serve --fingerprint",
              "serve --listen 127.0.0.1:1", "serve --config x --keys y --host-key z"),
    "approvals": ("approvals", "approvals --json"),
    "approve": ("approve 1", "approve --json 1"),
    "deny": ("deny 1",),
    "audit ls": ("audit ls", "audit ls --who anna -n 1 --json", "audit"),
    "audit verify": ("audit verify", "audit verify --json"),
    "recordings ls": ("recordings ls", "recordings"),
    "recordings play": ("recordings play 1", "recordings play --speed 9 --json 1"),
    "recordings rm": ("recordings rm -y 1", "recordings rm ../../state.db"),
    "completion": ("completion bash",),
    "reap": (f"reap {REF}",),
}  # fmt: skip
WITHOUT_A_VERB = (
    "--profile /tmp/x.toml", "--profile -", "-p /dev/stdin --down --purge --yes", "--profile x --adopt",
    "--profile x --foreground", "--demo", "--demo 9 --plain", "--json --profile x", "-p x --recreate --yes",
    "observe 1", "drive 1", "sessions", "web", "web-token", "sftp-server", "/usr/lib/openssh/sftp-server",
    "scp -t /tmp", "scp -f /etc/passwd", "internal-sftp", "sh", "bash -i", "/bin/sh -c id", "python3 -c 1", "env", "",
)  # fmt: skip
INJECTED = (
    "ls; touch {mark}", "ls && touch {mark}", "ls | tee {mark}", "ls > {mark}", "$(touch {mark})", "`touch {mark}`",
    "ls $(touch {mark})", "ls\ntouch {mark}", "ls\rtouch {mark}", "ls 'unclosed", 'ls "$(touch {mark})"',
    "ls & touch {mark}", "vmtui ls; touch {mark}", "vmtui stop web", "vmtui vmtui stop web", "exec vmtui stop web",
    "-- stop web", "ls -- ; stop web", "ls\0stop web", "\u00ff\u00fe", "ls --json --json=1", "ls ../../../etc",
    "ls {mark}", "stop web #", "STOP web", "stop\tweb", "ls @{mark}", "--help; touch {mark}", "ls ~/../..",
    "ls ${{IFS}}touch${{IFS}}{mark}",
)  # fmt: skip
VARIABLES = {
    "LD_PRELOAD": "/tmp/x.so", "LD_LIBRARY_PATH": "/tmp", "PYTHONPATH": "/tmp", "PYTHONSTARTUP": "/tmp/x.py",
    "PYTHONINSPECT": "1", "PYTHONHOME": "/tmp", "PATH": "/tmp", "HOME": "/tmp", "XDG_STATE_HOME": "/tmp/s",
    "XDG_CONFIG_HOME": "/tmp/c", "XDG_RUNTIME_DIR": "/tmp/r", "VMTUI_DEBUG": "1", "VMTUI_ROLE": "admin",
    "VMTUI_NAME": "anna", "VMTUI_SESSION": "x", "TERMINFO": "/tmp", "TERMINFO_DIRS": "/tmp",
    "TEXTUAL_DRIVER": "os:system", "TEXTUAL_LOG": "/tmp/log", "EDITOR": "touch", "PAGER": "touch", "SHELL": "/bin/sh",
    "BASH_ENV": "/tmp/x", "ENV": "/tmp/x", "TMPDIR": "/tmp/t", "LANG": "../../x", "LC_ALL": "\x1b]0;x\x07",
    "SSH_ORIGINAL_COMMAND": "stop web", "SSH_AUTH_SOCK": "/tmp/agent",
}  # fmt: skip
