"""The console over SSH, measured beside a subprocess for each session and a server that only echoes."""
