"""Common base of the pipelines: noise by seed, micro-batches, the fused step, and the saved folder."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import gaierror
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RemoteEntryNotFoundError
from torch import Tensor

from fastddpm import hub
from fastddpm.models.paper_unet import PaperUNet2DModel
from fastddpm.pipelines.noise import NoiseSource
from fastddpm.pipelines.portable import FastDDPMPipeline as PortablePipeline
from fastddpm.pipelines.portable import OnStep, reverse
from fastddpm.pipelines.saved_parts import check_saved
from fastddpm.pipelines.steps import set_even_timesteps, take_step_of
from fastddpm.schedulers.fused_ddpm import FusedDDPMScheduler


class UNetPipeline(PortablePipeline):
    """A U-Net and a scheduler; base of the pipelines of this package.

    A scheduler of exact type `diffusers.DDPMScheduler` becomes the equal `FusedDDPMScheduler`; any other is kept.
    """

    def __init__(self, unet: PaperUNet2DModel | UNet2DModel, scheduler: Any, null_class: int | None = None,
                 label_names: Sequence[str] | None = None, guidance_scale: float = 1.0,
                 num_inference_steps: int | None = None):  # fmt: skip
        if type(scheduler) is DDPMScheduler:
            scheduler = FusedDDPMScheduler.from_config(scheduler.config)
        super().__init__(unet, scheduler, null_class, label_names, guidance_scale, num_inference_steps)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "UNetPipeline":
        """Load as diffusers does, but without `use_safetensors=False` pickled weights, which may hold code, are
        refused.

        Raises: OSError: there is no such folder or repository, or its weights are not safetensors. ValueError: as
            `check_saved`.
        """
        kwargs.setdefault("use_safetensors", True)
        if Path(pretrained_model_name_or_path).is_dir():
            check_saved(Path(pretrained_model_name_or_path))
        try:
            loaded: UNetPipeline = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except OSError as error:
            raise _explained(str(pretrained_model_name_or_path), error) from error
        for tensor in (*loaded.unet.parameters(), *loaded.unet.buffers()):
            tensor.data = tensor.data.clone()  # loaded, it is a map of its file, and changes with that
        return loaded

    @classmethod
    def download(cls, pretrained_model_name: Any, **kwargs: Any) -> str | Path:
        """Download as diffusers does, on loading too.  Raises: ValueError: as `check_saved`."""
        folder: str | Path = super().download(pretrained_model_name, **kwargs)
        check_saved(Path(folder))
        return folder

    @property
    def network(self) -> Any:
        """Network that computes."""
        return self.unet

    def save_pretrained(self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save as diffusers does; with `push_to_hub`, the finished folder is pushed as `push_to_hub` does it, as
        `repo_id`."""
        pushing = {name: kwargs.pop(name) for name in _OF_PUSHING if name in kwargs} if push_to_hub else {}
        super().save_pretrained(str(save_directory), *args, **kwargs)
        if push_to_hub:
            options = {"repo_id": Path(save_directory).name, "variant": kwargs.get("variant"), **pushing}
            hub.push(Path(save_directory), **options)

    def push_to_hub(self, repo_id: str, commit_message: str | None = None, private: bool | None = None,
                    token: str | None = None, create_pr: bool = False, safe_serialization: bool = True,
                    variant: str | None = None, subfolder: str | None = None,
                    *, revision: str | None = None) -> str:  # fmt: skip
        """Publish the pipeline in one commit, in the layout that loads with and without this package.

        Args:
            repo_id: user/name; made if it is not there.
            commit_message, private, token, create_pr, variant, revision: as of `fastddpm.hub.push`.
        Returns: address of the repository, or of the pull request.
        Raises: ValueError: pickled weights or a subfolder, which are not supported; and what `fastddpm.hub.push`
            raises.
        """
        if not safe_serialization or subfolder is not None:
            raise ValueError("safe_serialization False and subfolder are not supported; leave them out")
        hub.check_can_push(repo_id, revision, token, create_pr=create_pr)
        with tempfile.TemporaryDirectory(prefix="fastddpm-save-") as folder:
            self.save_pretrained(folder, variant=variant)
            return hub.push(
                Path(folder), repo_id, private=private, revision=revision, commit_message=commit_message, token=token,
                create_pr=create_pr, variant=variant,
            ).url  # fmt: skip

    def finish_folder(self, folder: Path) -> None:
        """See `fastddpm.hub` for the layout."""
        super().finish_folder(folder)
        hub.finish_folder(folder, self.scheduler)

    def set_even_timesteps(self, num_inference_steps: int) -> None:
        """Space the timesteps as the scheduler does, but for diffusers' miscounts."""
        set_even_timesteps(self.scheduler, num_inference_steps)

    def denoise(
        self,
        start: Callable[[slice, NoiseSource], Tensor],
        choose: Callable[[], list[Any]],
        noise: NoiseSource,
        batch_size: int,
        *,
        labels: Tensor | None,
        micro_batch_size: int | None,
        report: OnStep,
        eta: float | None = None,
    ) -> Tensor:
        """Make x_t of each micro-batch and reverse it.

        Args:
            start: (which images, their noise) -> x_t, (b, C, H, W), float32.
            choose: sets the scheduler's timesteps anew and returns them; some schedulers count their steps.
            noise, labels: of all images.
            micro_batch_size: images of one forward pass; with seeds, the last micro-batch is padded to it, so that an
                image's bits do not depend on how many there are. None: all at once.
            report: is told of each step.
            eta: of DDIM.
        Returns: x_0, (batch_size, C, H, W), float32.
        """
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; it must be at least 1, or None for all at once")
        size = micro_batch_size or batch_size
        size = min(size, batch_size) if noise.seeds is None else size
        dtype, device = self.unet.dtype, self._execution_device
        firsts = range(0, batch_size, size)
        results: list[Tensor] = []
        self._num_timesteps = len(choose())
        with self.progress_bar(total=len(firsts) * self._num_timesteps) as bar:

            def on_step(index: int, t: Any, x_t: Tensor) -> Tensor | None:
                bar.update()
                return report(index, t, x_t)

            for first in firsts:
                places = slice(first, min(first + size, batch_size))
                part = noise.part(places, size)
                timesteps = choose()  # before x_t, whose size some schedulers take from them
                x_t = start(places, part)
                predict = self.predictor(None if labels is None else padded(labels[places], len(x_t)))
                take_step = take_step_of(self.scheduler, part, dtype, device, eta)
                x_0 = reverse(predict, take_step, x_t, timesteps, dtype, on_step)
                results.append(x_0[: places.stop - first])
        self.maybe_free_model_hooks()
        return torch.cat(results)


def _explained(source: str, error: OSError) -> OSError:
    """Error with what to do where a pipeline cannot be loaded; diffusers says what became of its files and its cache,
    not why."""
    if error.errno is not None:
        return error
    if "safetensors" in str(error):
        return OSError(
            f"{source} has no weights as safetensors, or damaged ones; copy it again, or save it with save_pretrained"
        )
    if Path(source).is_dir():
        return OSError(f"{source} is no whole pipeline: a part is missing or damaged; copy or save it again")
    causes = list(_causes(error))
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError | gaierror | TimeoutError)
           for cause in causes):  # fmt: skip
        return OSError(
            f"{source} is no folder here, and the Hub cannot be reached: check the network, or name a folder"
        )
    if any(isinstance(cause, RemoteEntryNotFoundError) for cause in causes):
        return OSError(f"{source} on the Hub holds no pipeline, or not a whole one; name another")
    return OSError(
        f"{source} is no folder here, and cannot be had from the Hub: check the name; a private one wants a token, as "
        "`hf auth login` keeps it"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_OF_PUSHING = ("repo_id", "commit_message", "private", "token", "create_pr", "revision")


def padded(rows: Tensor, size: int) -> Tensor:
    """`rows`, followed by copies of the last one up to `size`."""
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])


def fingerprint(network: Any, scheduler: Any | None) -> str:
    """Checksum of everything that is loaded: the weights' bits, the network's and the scheduler's settings."""
    found = hashlib.blake2b(digest_size=16)
    for owner in (network,) if scheduler is None else (network, scheduler):
        settings = {key: value for key, value in owner.config.items() if not key.startswith("_")}
        found.update(json.dumps([type(owner).__name__, settings], sort_keys=True, default=str).encode())
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
