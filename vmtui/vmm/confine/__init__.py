"""What holds a guest that has taken over its VMM: the walls around the machine, and around its back-ends.

The monitor forks the machine with `fork.fork_apart`. The machine opens all that it needs, makes the VM, and calls
`enter.enter` while it has one thread; then come vCPUs and loops. What the machine may not open any more, the monitor
opens and hands over a unix socket (SCM_RIGHTS). Back-ends are started by `backend.start_storage` and
`backend.start_virtiofsd`. docs/security.md says what each wall holds.
"""
