"""Makes what a model_index.json of ours names known to diffusers, as soon as diffusers is imported:
`["fastddpm", "PaperUNet2DModel"]`, and this package's pipeline for the folder's own `pipeline.py`, which is not run.

Importing diffusers takes seconds; `import fastddpm` and `fastddpm --help` must not. So diffusers is not imported here:
if it is not there yet, a finder waits for the two modules, and adds an attribute to each when it has been run.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PORTABLE = ["pipeline", "FastDDPMPipeline"]
"""`_class_name` of a folder that brings its `pipeline.py`: diffusers takes it for code, which wants trust"""


def register() -> None:
    """Add to diffusers what is missing there, never over an attribute that exists. May be called again."""
    for name, attach in _ATTACH.items():
        if name in sys.modules:
            attach()
        elif not any(isinstance(finder, _AfterImport) and finder.name == name for finder in sys.meta_path):
            sys.meta_path.insert(0, _AfterImport(name))


def _attach_package() -> None:
    """Components are looked up as attributes of `diffusers.pipelines`."""
    pipelines = sys.modules["diffusers.pipelines"]
    if "fastddpm" not in vars(pipelines):
        setattr(pipelines, "fastddpm", sys.modules["fastddpm"])  # noqa: B010 - the attribute is not diffusers' own


def _attach_pipeline() -> None:
    """A pipeline is looked up as an attribute of `diffusers`, by what this method reads of folders and downloads."""
    kind = sys.modules["diffusers.pipelines.pipeline_utils"].DiffusionPipeline
    if "_dict_from_json_file" in vars(kind):
        return
    as_in_diffusers = kind._dict_from_json_file.__func__

    def read(cls: type, json_file: str | Path) -> dict[str, Any]:
        config: dict[str, Any] = as_in_diffusers(cls, json_file)
        if config.get("_class_name") == PORTABLE:
            config["_class_name"] = PORTABLE[1]
            diffusers = sys.modules["diffusers"]
            setattr(diffusers, PORTABLE[1], getattr(sys.modules["fastddpm"], PORTABLE[1]))
        return config

    kind._dict_from_json_file = classmethod(read)


_ATTACH: dict[str, Callable[[], None]] = {
    "diffusers.pipelines": _attach_package,
    "diffusers.pipelines.pipeline_utils": _attach_pipeline,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, and attaches to it once it has been run."""

    def __init__(self, name: str):
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_attach(module: ModuleType) -> None:
                run(module)
                _ATTACH[fullname]()

            spec.loader.exec_module = run_and_attach  # type: ignore[method-assign]
        return spec
