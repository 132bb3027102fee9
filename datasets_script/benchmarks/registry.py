"""Registry of the datasets by name, and their registration with `load_dataset`."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import datasets

    from .base import Benchmark


# Part of the cache path; change it together with the rows, so that datasets prepared before are not mixed in.
SCHEMA_HASH = "v1"

PAIRS = "artiagent"
MODULES = {
    PAIRS: "datasets_script.pairs.builder",
    "artibench": "datasets_script.benchmarks.artibench",
    "richhf": "datasets_script.benchmarks.richhf",
    "loki": "datasets_script.benchmarks.loki",
    "synthscars": "datasets_script.benchmarks.synthscars",
    "synartifact": "datasets_script.benchmarks.synartifact",
    "pal4vst": "datasets_script.benchmarks.pal4vst",
    "x_aigd": "datasets_script.benchmarks.x_aigd",
}
BENCHMARKS = tuple(name for name in MODULES if name != PAIRS)


def get_builder(name: str) -> type[datasets.GeneratorBasedBuilder]:
    """
    Return the builder class of a dataset.

    Args:
        name (`str`): Name of the dataset, one of `MODULES`.

    Raises:
        ValueError: there is no dataset of that name.
    """
    import datasets

    if name not in MODULES:
        raise ValueError(f"`name` must be one of {', '.join(MODULES)}, got {name!r}")
    module = import_module(MODULES[name])
    return next(
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, datasets.GeneratorBasedBuilder)
        and value.__module__ == module.__name__
    )


def get_benchmark(name: str) -> Benchmark:
    """
    Return a benchmark.

    Args:
        name (`str`): Name of the benchmark, one of `BENCHMARKS`.

    Raises:
        ValueError: there is no benchmark of that name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"`name` must be one of {', '.join(BENCHMARKS)}, got {name!r}")
    return get_builder(name).benchmark


def register() -> None:
    """
    Register the datasets with `load_dataset` in this process. It then accepts their names and options, as in
    `load_dataset("artibench", source="path/to/its/files", num_proc=2)`, and ignores folders of the same names.

    This relies on private parts of `datasets` (as of 5.2), which has no public way to add datasets.

    Raises:
        ImportError: the installed version of `datasets` lacks these parts.
    """
    import datasets.load
    from datasets import packaged_modules
    from datasets.data_files import DataFilesDict

    try:
        known, factory = packaged_modules._PACKAGED_DATASETS_MODULES, datasets.load.PackagedDatasetModuleFactory
    except AttributeError as error:
        raise ImportError(
            f"`register` needs datasets 5.2, whose private parts it uses, got {datasets.__version__}; install that or "
            "use `artiagent prepare`"
        ) from error
    if MODULES.keys() <= known.keys():
        return

    class Factory(factory):  # type: ignore[valid-type, misc]
        def get_module(self) -> datasets.load.DatasetModule:
            if self.name not in MODULES:
                return super().get_module()
            # Without data files, the builder would scan the current directory.
            options = {"dataset_name": self.name, "data_files": DataFilesDict()}
            return datasets.load.DatasetModule(MODULES[self.name], SCHEMA_HASH, options)

    known.update({name: (module, SCHEMA_HASH) for name, module in MODULES.items()})
    datasets.load.PackagedDatasetModuleFactory = Factory
