"""A clean virtual machine for every test: boot once, save, and revert in milliseconds."""
