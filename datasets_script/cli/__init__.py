"""The command line `artiagent`: its parser, and one module for each command."""
