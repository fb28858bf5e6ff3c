"""The WASM host process, `python -m vmtui.sandbox`: one module, one process."""
