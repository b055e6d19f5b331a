"""The command line: parse arguments and print, one file a command. `main` puts the commands together."""
