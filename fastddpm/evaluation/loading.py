"""A judge from its file, whichever kind it is."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load

from fastddpm.evaluation.classifier import Classifier
from fastddpm.evaluation.unlabelled import UnlabelledFeatures

_KINDS: tuple[type[Classifier] | type[UnlabelledFeatures], ...] = (Classifier, UnlabelledFeatures)


def load_judge(path: Path) -> Classifier | UnlabelledFeatures:
    """From a file of `to_bytes`, in eval mode, on the CPU.

    Raises: ValueError: no such file, or another kind.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; give a .safetensors file of `fastddpm judge`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        kind = next((kind for kind in _KINDS if kind.kind in metadata), None)
        if kind is None:
            raise ValueError("its metadata name none")
        arguments = json.loads(metadata[kind.kind])
        made = kind(**{**arguments, "image_shape": tuple(arguments["image_shape"])})
        made.load_state_dict(load(path.read_bytes()))
    except Exception as error:  # safetensors, json and torch raise their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} holds no judge of ours ({reason}); make one with `fastddpm judge`") from error
    return made.eval()
