"""The terminal panel: one list of everything, driven through the same Workspace as headless."""
