"""Containers: OCI images under runc or crun, with conmon as their parent."""
