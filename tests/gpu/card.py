"""A CUDA device without a card: tensors that say "cuda:0" and keep their data on the CPU, and books on what is done.

torch's private interfaces, as in torch 2.13: `Tensor._make_wrapper_subclass`, the hooks and the guard of `card.cpp`,
`_set_only_lift_cpu_tensors`, `_library.custom_ops.OPDEFS`. Nothing is timed, and no kernel of CUDA runs: what is seen
is which operations are asked for, in which dtype, and which of them make the host wait.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("cuda", 0)
TORCH = "2.13"
SMALL = 64 * 1024
"""bytes up to which a copy from the host counts as small"""
_aten = torch.ops.aten
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "detach", "alias",
         "_unsafe_view", "is_pinned", "_reshape_alias", "set_"}  # fmt: skip
_WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "equal",
    "is_nonzero",
    "bincount",
}
_INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


def _library() -> ctypes.CDLL | None:
    """`card.cpp`, built once for a torch; None: another torch than it was written for, or no compiler."""
    source, compiler = Path(__file__).with_name("card.cpp"), shutil.which("g++")
    made = source.parent / "__pycache__" / f"card-{torch.__version__}.so"
    if not torch.__version__.startswith(f"{TORCH}.") or torch.cuda.is_available() or sys.platform != "linux":
        return None
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        if compiler is None:
            return None
        made.parent.mkdir(exist_ok=True)
        temporary, root = made.with_suffix(f".{os.getpid()}"), Path(torch.__file__).parent
        words = ["-std=c++20", "-O0", "-fPIC", "-shared", f"-I{root}/include", str(source), f"-L{root}/lib"]
        subprocess.run([compiler, *words, "-o", str(temporary), "-lc10", "-ltorch_cpu"], check=True)
        temporary.replace(made)
    return ctypes.CDLL(str(made))


LIBRARY = _library()  # before the first backward pass: autograd starts its threads, one a device, once
needs_card = pytest.mark.skipif(LIBRARY is None, reason=f"wants torch {TORCH} without CUDA, on Linux, and g++")


class CardTensor(torch.Tensor):
    """A tensor of the card; `host` holds its data, with the same strides."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype, device=CARD
        )

    def __init__(self, host: torch.Tensor):
        self.host = host

    def __deepcopy__(self, memo):
        if torch.overrides.has_torch_function_unary(self):
            return torch.overrides.handle_torch_function(torch.Tensor.__deepcopy__, (self,), self, memo)
        made = CardTensor(self.host.clone()).requires_grad_(self.requires_grad)
        made._is_param = getattr(self, "_is_param", False)
        return memo.setdefault(id(self), made)

    def tolist(self):
        return self.cpu().tolist()  # torch's own refuses other classes

    def untyped_storage(self):
        return self.host.untyped_storage()  # safetensors asks what is shared

    def __repr__(self):
        return f"CardTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of the card, which is not there any more")


class Card(TorchDispatchMode):
    """The device, while it is there, and its books.

    Attributes:
        launches: operations that compute, by name, Triton launches among them; a foreach operation counts once.
        waits: what made the host wait for the device, as text.
        casts: copies of a tensor of the card into another dtype or memory format.
    """

    def __init__(self, *, name: str = "NVIDIA H100", capability: tuple[int, int] = (9, 0), count: int = 1):
        super().__init__()
        self.name, self.capability, self.count = name, capability, count
        self.launches: Counter[str] = Counter()
        self.waits: list[str] = []
        self.casts: list[tuple[str, tuple[int, ...]]] = []
        self._pinned: set[int] = set()

    def forget(self) -> None:
        """Begin the books anew."""
        self.launches.clear(), self.waits.clear(), self.casts.clear()

    @property
    def num_launches(self) -> int:
        """Sum over all names."""
        return sum(self.launches.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name == "aten::to":  # comes whole below autograd
            with self:
                return func.decompose(*args, **(kwargs or {}))
        kwargs, name = dict(kwargs or {}), func._schema.name.rpartition("::")[2]
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        on_card = [x for x in tensors if isinstance(x, CardTensor)]
        device = kwargs.get("device")
        to_card = bool(on_card) if device is None else torch.device(device).type == "cuda"
        if name in ("is_pinned", "_pin_memory", "pin_memory"):
            return self._pin(name, tensors[0])
        if not on_card and not to_card:
            return func(*args, **kwargs)
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        hosts = [x for x in tensors if not isinstance(x, CardTensor)]
        if name in ("_to_copy", "copy_"):
            self._note_copy(name, args, kwargs, to_card if name == "_to_copy" else isinstance(args[0], CardTensor))
        else:
            self._note(func, name, args, on_card, hosts)
        if func.namespace == "fastddpm":
            self._launch_for_the_books(func, args, kwargs)
        return self._computed(func, name, args, kwargs, to_card)

    def _computed(self, func, name, args, kwargs, to_card):
        cards = {id(x.host): x for x in tree_flatten((args, kwargs))[0] if isinstance(x, CardTensor)}
        args, kwargs = tree_map(lambda x: x.host if isinstance(x, CardTensor) else x, (args, kwargs))
        if name == "_to_copy":
            kwargs.pop("non_blocking", None)
        run = _ATTENTION.get(name, func)
        result = run(*args, **kwargs)
        to_card = to_card and not (name == "copy_" and not cards)

        def put(x):
            if not isinstance(x, torch.Tensor) or not to_card:
                return x
            return cards[id(x)] if id(x) in cards else CardTensor(x)

        return tree_map(put, result)

    def _note(self, func, name, args, on_card, hosts) -> None:
        if name in _INDEXES:
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype == torch.bool or not isinstance(x, CardTensor) for x in indices):
                self.waits.append(f"{name} by {'a mask' if indices[0].dtype == torch.bool else 'indices of the host'}")
        elif on_card and any(x.dim() for x in hosts):
            shapes = [tuple(x.shape) for x in hosts]
            raise RuntimeError(f"{func}: tensors of cuda:0 and of cpu, {shapes}, mixed")
        if name in _WAITS:
            self.waits.append(name)
        if not (func.is_view or name in _FREE or func.namespace == "fastddpm"):
            self.launches[name] += 1

    def _note_copy(self, name, args, kwargs, to_card) -> None:
        source = args[1] if name == "copy_" else args[0]
        stays = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
        if isinstance(source, CardTensor) and to_card:
            self.launches[name] += 1
            dtype = args[0].dtype if name == "copy_" else kwargs.get("dtype") or source.dtype
            if dtype != source.dtype or kwargs.get("memory_format") not in (None, torch.preserve_format):
                self.casts.append((f"{source.dtype} to {dtype}".replace("torch.", ""), tuple(source.shape)))
        elif not stays and not (name == "copy_" and not source.dim() and not isinstance(source, CardTensor)):
            way = "to the card" if to_card else "to the host"
            size = source.numel() * source.element_size()
            self.waits.append(f"copy {way} of {'a small' if size <= SMALL else 'a large'} tensor {tuple(source.shape)}")

    def _pin(self, name, tensor):
        if name == "is_pinned":
            return tensor.untyped_storage()._cdata in self._pinned
        made = tensor.clone()
        self._pinned.add(made.untyped_storage()._cdata)
        return made

    def _launch_for_the_books(self, func, args, kwargs) -> None:
        """Go the way that launches the kernel; its result is thrown away, since no kernel runs."""
        definition = torch._library.custom_ops.OPDEFS[func._schema.name]
        with self:
            definition._init_fn(*args, **kwargs)

    def wrap_triton(self, kernel):
        """Instead of torch's: a launch is written down."""

        class Noted:
            def __getitem__(_, grid):
                return lambda *arguments, **options: self.launches.update([kernel.fn.__name__])

        return Noted()


def _flash(q, k, v, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
    out, sums = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, dropout_p, is_causal, scale=scale)
    nothing = torch.zeros(2, dtype=torch.uint64)
    return out, sums, None, None, q.shape[2], k.shape[2], nothing, nothing[0], out.new_empty(0)


def _flash_backward(grad, q, k, v, out, sums, _q, _k, _mq, _mk, dropout_p, is_causal, *_, scale=None):
    return _aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, sums, dropout_p, is_causal, scale=scale
    )


_ATTENTION = {
    "_scaled_dot_product_flash_attention": _flash,
    "_scaled_dot_product_flash_attention_backward": _flash_backward,
}


@contextlib.contextmanager
def inserted(**options) -> Iterator[Card]:
    """The card is there, and torch.cuda says so."""
    card = Card(**options)
    properties = SimpleNamespace(
        name=card.name, major=card.capability[0], minor=card.capability[1], total_memory=80 * 2**30,
        multi_processor_count=132,
    )  # fmt: skip
    answers = {
        "is_available": True, "device_count": card.count, "current_device": 0, "is_initialized": True,
        "is_bf16_supported": True, "get_device_name": card.name, "get_device_capability": card.capability,
        "get_device_properties": properties, "mem_get_info": (79 * 2**30, 80 * 2**30),
        "is_current_stream_capturing": False, "max_memory_allocated": 0, "device": contextlib.nullcontext(),
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        **dict.fromkeys(("set_device", "empty_cache", "synchronize", "manual_seed", "manual_seed_all", "init",
                         "_lazy_init", "set_rng_state", "reset_peak_memory_stats", "ipc_collect")),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, mock.Mock(return_value=answer)))
        stack.enter_context(mock.patch.object(torch.library, "wrap_triton", card.wrap_triton))
        kinds = [*_foreach_utils._foreach_supported_types, CardTensor]
        stack.enter_context(mock.patch.object(_foreach_utils, "_foreach_supported_types", kinds))
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # `param.data = ` takes no other class
        assert LIBRARY is not None
        LIBRARY.swap_hooks()
        stack.callback(LIBRARY.swap_hooks)
        stack.enter_context(card)
        yield card
