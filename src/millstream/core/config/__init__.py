"""Tables of configuration names, types, defaults and documentation."""
