"""One file a command: arguments in, one call into a room, files and a summary out."""
