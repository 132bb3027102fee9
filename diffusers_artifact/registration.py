"""Registration of a pipeline class under its name in diffusers, importing neither before it is needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_pipeline(class_name: str, module: str) -> None:
    """
    Make `diffusers.<class_name>` the class of that name in `module`, which is imported on first access.

    `DiffusionPipeline.from_pretrained` looks up the class that a saved pipeline names in diffusers. If diffusers is
    not imported yet, the name is added once it is.

    Args:
        class_name (`str`): Name of the pipeline's class.
        module (`str`): Absolute name of the module that defines it.
    """
    if "diffusers" in sys.modules:
        _add_lazy_attribute(sys.modules["diffusers"], class_name, module)
    else:
        sys.meta_path.insert(0, _WhenDiffusersIsImported(class_name, module))


def _add_lazy_attribute(library: ModuleType, name: str, home: str) -> None:
    def load(_: Any) -> Any:
        return getattr(import_module(home), name)

    # Python lets a module's class be replaced by a subclass, whose properties become attributes of the module.
    kind = type(library)
    library.__class__ = type(kind.__name__, (kind,), {name: property(load), "__module__": kind.__module__})


class _WhenDiffusersIsImported(MetaPathFinder):
    """Import hook that leaves finding diffusers to the other finders and adds the class after it is loaded."""

    def __init__(self, class_name: str, module: str):
        self.class_name, self.module = class_name, module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "diffusers":
            return None
        # Those behind this one, among them the hooks of other classes: two that asked each other would never end.
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(fullname, path, target) for finder in behind)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_add(module: ModuleType) -> None:
                execute(module)
                # diffusers replaces itself while it is executed.
                _add_lazy_attribute(sys.modules[fullname], self.class_name, self.module)

            spec.loader.exec_module = execute_and_add  # type: ignore[method-assign]
        return spec
