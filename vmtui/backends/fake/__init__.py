"""Simulated resources of every kind: nothing is real, everything behaves. For demos and for tests of what is above."""
