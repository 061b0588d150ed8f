"""Makes `["fastddpm", "PaperUNet2DModel"]` in a model_index.json known to diffusers, as soon as diffusers is imported.

Importing diffusers takes seconds; `import fastddpm` and `fastddpm --help` must not. So diffusers is not imported here:
if it is not there yet, a finder waits for `diffusers.pipelines` and adds the attribute when that module has been run.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_TARGET = "diffusers.pipelines"


def register() -> None:
    """Make this package an attribute of `diffusers.pipelines`; never over one that exists. May be called again."""
    if _TARGET in sys.modules:
        _attach()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _attach() -> None:
    pipelines = sys.modules[_TARGET]
    if "fastddpm" not in vars(pipelines):
        setattr(pipelines, "fastddpm", sys.modules["fastddpm"])  # noqa: B010 - the attribute is not diffusers' own


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds `diffusers.pipelines` as the other finders do, and attaches the package once it has been run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_attach(module: ModuleType) -> None:
                run(module)
                _attach()

            spec.loader.exec_module = run_and_attach  # type: ignore[method-assign]
        return spec
