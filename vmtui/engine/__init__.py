"""The execution core that every front end drives."""
