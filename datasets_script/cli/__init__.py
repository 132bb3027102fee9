"""Commands of `artiagent`, one a file."""

from . import detect, evaluate, export, predict, prepare, push, report


COMMANDS = (prepare, predict, evaluate, detect, export, report, push)
