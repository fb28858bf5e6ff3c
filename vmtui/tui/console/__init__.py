"""The console: a terminal emulator in a widget, on a stream to a guest."""
