"""The map: which lines it has, and how one is drawn."""
