"""Run train_unconditional.py, unchanged, from a seed: python -m benchmarks.seeded SEED SCRIPT [arguments of the script]

The script has no seed of its own. It imports `torchvision.transforms`; where torchvision is not installed, it gets
`transforms_stand_in` under that name. Everything else is imported before, because datasets
and transformers look for a torchvision.
"""

import importlib.util
import runpy
import sys
import types

import datasets  # noqa: F401 - imported before there is a torchvision
from accelerate.utils import set_seed
from diffusers import DDPMPipeline, UNet2DModel  # noqa: F401 - the same, in full

if __name__ == "__main__":
    if importlib.util.find_spec("torchvision") is None:
        from benchmarks import transforms_stand_in

        torchvision = types.ModuleType("torchvision")
        torchvision.transforms = transforms_stand_in  # type: ignore[attr-defined]
        sys.modules["torchvision"] = torchvision
    set_seed(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
