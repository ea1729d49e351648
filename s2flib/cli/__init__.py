"""The command line, one file per command group: each parses options, calls the library and prints messages."""
