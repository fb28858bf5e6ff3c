"""Logs of any size: rows are found from both ends, nothing is loaded that is not shown."""
