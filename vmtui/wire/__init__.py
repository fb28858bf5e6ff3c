"""Versioned JSON lines on unix sockets and pipes: `lines` (framing), `server` and `client`. Standard library only.

A server greets with `{"wire": 1, "service": NAME}`. The client sends `{"id": N, "call": NAME, "args": {…}}` and gets,
in any order, `{"id": N, "result": …}` or `{"id": N, "error": {"code": WORD, "message": TEXT}}`. The server may send
`{"event": NAME, …}` at any time. Unknown keys are ignored, so that fields can be added within one version.
"""
