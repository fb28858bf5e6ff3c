"""Forms made from the types of specs: what can be filled in, what is typed as a value, and the widgets for both."""
