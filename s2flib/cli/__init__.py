"""The command line, one file per command group: options, a call into the library, messages."""
