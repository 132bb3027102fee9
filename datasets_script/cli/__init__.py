"""The command `artiagent`: a parser, and one file a command."""
