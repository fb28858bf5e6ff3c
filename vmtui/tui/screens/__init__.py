"""The views of the panel, and its dialogs."""
