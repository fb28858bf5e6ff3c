"""The headless front end: converge, report, return."""
