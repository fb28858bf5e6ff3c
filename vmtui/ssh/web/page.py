"""The three pages there are, and the headers that go with every answer. No script or style is in a page itself."""

from __future__ import annotations

import secrets
from html import escape
from string import Template

from vmtui.core.policy import Person, Role

HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # not "no-referrer": a form would then be sent with the origin null
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # a guest's program may put text into the clipboard through its terminal, and may not read it from there
    "Permissions-Policy": "clipboard-read=(), camera=(), microphone=(), geolocation=(), display-capture=()",
    "Cache-Control": "no-store",
    "Server": "vmtui",
}
CLOSED = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
HEAD = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>vmtui</title>\n'

CONSOLE = Template(
    HEAD
    + """<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/assets/xterm.css">
<link rel="stylesheet" href="/assets/console.css">
<script src="/assets/console.js" nonce="$nonce"></script>
<script src="/assets/terminal.js"></script>
</head>
<body>
<header>
<b>vmtui</b><span>$name, role $role</span><span>$recorded</span>
<form method="post" action="leave"><button>Log out</button></form>
</header>
<main id="terminal" class="textual-terminal" data-session-websocket-url="$socket" data-font-size="14"></main>
<section id="over" role="alert"><div class="box">
<p>This session has ended. <span id="reason"></span></p>
<p>It is not taken up again: the next one is a new one. What was started runs on.</p>
<p><a href="">New session</a></p>
</div></section>
<noscript><div class="box">The terminal of this page is a script.</div></noscript>
</body>
</html>
"""
)
WORDS = Template(
    HEAD
    + """$refresh<link rel="stylesheet" href="/assets/console.css">
</head>
<body><main class="box"><p>$words</p>$hint</main></body>
</html>
"""
)


def console(person: Person, role: Role, *, host: str, path: str, tls: bool, recorded: bool) -> tuple[str, str]:
    """The page with the terminal, and its Content-Security-Policy. `host` has passed `Names.knows`."""
    nonce = secrets.token_urlsafe(16)
    server = f"{'wss' if tls else 'ws'}://{host}"
    html = CONSOLE.substitute(
        nonce=nonce,
        name=escape(person.name),
        role=escape(role.name),
        recorded="What is shown here is recorded." if recorded and role.record else "",
        socket=escape(f"{server}{path}terminal"),
    )
    policy = (
        "default-src 'none'; script-src 'self'; font-src 'self'; "
        f"style-src 'self' 'nonce-{nonce}'; connect-src {server}{path}terminal; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )
    return html, policy


def words(text: str, hint: str = "", *, to: str = "") -> tuple[str, str]:
    """A page that says something, and its policy; with `to` one that leads on to that path at once."""
    html = WORDS.substitute(
        words=escape(text),
        hint=f"<p><code>{escape(hint)}</code></p>" if hint else "",
        refresh=f'<meta http-equiv="refresh" content="0;url={escape(to)}">\n' if to else "",
    )
    return html, f"{CLOSED}; style-src 'self'; font-src 'self'"
