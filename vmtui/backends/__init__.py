"""The bundled backends; each is reached through the entry point group `vmtui.backend` alone."""
