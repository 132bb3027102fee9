"""The commands of `artiagent`: each is a line here and a module of its name beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from .parser import Parser
from .verbosity import add_verbosity_options


MAKE, LOOK, SCORE, TRAIN, PUBLISH = (
    "make data",
    "look",
    "benchmarks and scores",
    "train and detect",
    "publish",
)


@dataclass(frozen=True)
class Command:
    """
    A command. Its module has a `DESCRIPTION`, an `EPILOG` (notes and examples, below the options),
    `add_arguments(parser)`, and `run(args)`, which returns the exit status. The module is imported when the command is
    used; what `run` needs is imported in it, so that `--help` answers at once.

    Attributes:
        name (`str`): On the command line, and of the module.
        group (`str`): Its heading in `artiagent --help`.
        help (`str`): One line on what it does.
    """

    name: str
    group: str
    help: str

    def fill(self, parser: Parser) -> None:
        """Give the command's parser its description and arguments."""
        module = import_module(f".{self.name}", __package__)
        parser.description, parser.epilog = module.DESCRIPTION, module.EPILOG
        module.add_arguments(parser)
        add_verbosity_options(parser.add_argument_group("messages"))
        parser.set_defaults(run=module.run)


COMMANDS = (
    Command("demo", MAKE, "make pairs from photos that come with Python packages; offline, on a CPU"),
    Command("synthesize", MAKE, "make a dataset of pairs from a folder of photos"),
    Command("export", MAKE, "write pairs as COCO, WebDataset or ShareGPT conversations"),
    Command("status", LOOK, "say how far a run is, what it kept and how long it will take"),
    Command("show", LOOK, "draw the pairs of a run, or what a perception backend sees in photos"),
    Command("report", LOOK, "write a page about a run: balance, sizes, positions, possible shortcuts"),
    Command("prepare", SCORE, "turn a published benchmark, or pairs, into a dataset for load_dataset"),
    Command("predict", SCORE, "ask a vision-language model about every image of a benchmark"),
    Command("evaluate", SCORE, "score predictions on a benchmark, beside the published scores"),
    Command("train", TRAIN, "run a training recipe by its name, or list the recipes"),
    Command("detect", TRAIN, "find artifacts in images: where they are and what is wrong"),
    Command("push", PUBLISH, "publish a model, a dataset, a metric or the pipeline on the Hub"),
)
