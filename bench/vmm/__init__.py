"""The bundled VMM's figures."""
