"""All sessions that are open: how one is begun, found, and ended with the rest."""

from __future__ import annotations

from vmtui.ssh.session import Audit, Limits, Outlet, Request, Session, Watcher

__all__ = ["Audit", "Limits", "Outlet", "Request", "Session", "Watcher"]
