"""The list of commands of `artiagent`. Each is one line here and a module of the same name in this folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from .parser import Parser
from .verbosity import add_verbosity_options


MAKE, INSPECT, SCORE, TRAIN, FIX, PUBLISH = (
    "make data",
    "inspect",
    "benchmarks and scores",
    "train and detect",
    "generate with fewer artifacts",
    "publish",
)


@dataclass(frozen=True)
class Command:
    """
    A command of `artiagent`.

    Its module defines `DESCRIPTION`, `EPILOG` (notes and examples, shown below the options), `add_arguments(parser)`,
    and `run(args)`, which returns the exit status. The module is imported only when its command is used, and `run`
    imports what it needs itself, so that `--help` answers at once.

    Attributes:
        name (`str`): Name on the command line, and, with underscores for hyphens, of the module.
        group (`str`): Heading under which `artiagent --help` lists the command.
        help (`str`): What the command does, in one line.
    """

    name: str
    group: str
    help: str

    def fill(self, parser: Parser) -> None:
        """Add the command's description and arguments to its parser."""
        module = import_module(f".{self.name.replace('-', '_')}", __package__)
        parser.description, parser.epilog = module.DESCRIPTION, module.EPILOG
        module.add_arguments(parser)
        add_verbosity_options(parser.add_argument_group("messages"))
        parser.set_defaults(run=module.run)


COMMANDS = (
    Command("demo", MAKE, "make example pairs, offline and on a CPU, from photos in installed packages"),
    Command("synthesize", MAKE, "make a dataset of pairs from a folder of photos"),
    Command("corrupt", MAKE, "make a dataset of pairs by corrupting regions of photos"),
    Command("merge", MAKE, "put the pairs of several runs into one folder"),
    Command("export", MAKE, "convert pairs to COCO, YOLO, WebDataset or ShareGPT conversations"),
    Command("app", INSPECT, "open the app in the browser: make artifacts by hand, annotate images"),
    Command("status", INSPECT, "show a run's progress, what it kept and the time left"),
    Command("show", INSPECT, "draw the pairs of a run, or preview perception on your photos"),
    Command("report", INSPECT, "write an HTML report on a run: balance, sizes, positions, possible shortcuts"),
    Command("prepare", SCORE, "convert a published benchmark, or pairs, to a dataset for load_dataset"),
    Command("predict", SCORE, "run a vision-language model on every image of a benchmark"),
    Command("evaluate", SCORE, "score predictions on a benchmark, next to the published scores"),
    Command("train", TRAIN, "run a training recipe by name, or list the recipes"),
    Command("pseudo-label", TRAIN, "label images with a pixel detector, for the training of the next one"),
    Command("detect", TRAIN, "find artifacts in images: where they are and what is wrong"),
    Command("generate", FIX, "draw images from prompts, each the best of many by a reward model or a detector"),
    Command("correct", FIX, "repair the artifacts of images: find, draw again, ask again, keep what is better"),
    Command("compare", FIX, "compare folders of images pair by pair, with intervals and side-by-side pictures"),
    Command("push", PUBLISH, "publish a model, a dataset, a metric or the pipeline on the Hub"),
)
