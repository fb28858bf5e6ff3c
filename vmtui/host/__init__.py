"""The host below us: paths, processes, capability probes. Knows nothing of resources."""
