"""The console over SSH: the server, and the sessions that it serves to many. The only package that imports asyncssh."""
