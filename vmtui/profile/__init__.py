"""Profiles: TOML to specs, and references to an order."""
