"""What a resource is, without any I/O: specs, statuses, phases, the backend interface."""
