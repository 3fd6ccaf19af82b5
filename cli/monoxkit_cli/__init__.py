"""The command line: each command builds a config, calls the library and shows the result."""
