"""Versioned JSON lines on unix sockets."""
