"""WASM sandboxes on wasmtime: one confined process per module, made by the program `vmtui.sandbox`."""
