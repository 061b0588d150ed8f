"""PaperUNet2DModel in the hands of code written for diffusers' own models."""

import importlib.util
import inspect
import json

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import nn

from fastddpm import PaperUNet2DModel

TINY = {"sample_size": 8, "block_out_channels": (4, 8), "time_embedding_dim": 6}
BEYOND = {"norm_type": "group", "norm_num_groups": 2, "block_type": "residual", "attention_levels": (1,),
          "attention_head_dim": 4, "patch_size": 2, "num_class_embeds": 4}  # fmt: skip
BOTH = pytest.mark.parametrize("options", [{}, BEYOND], ids=["paper", "beyond"])
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def made(options, **more) -> PaperUNet2DModel:
    torch.manual_seed(0)
    model = PaperUNet2DModel(**TINY, **options, **more)
    for parameter in model.parameters():  # layers that start at zero would hide what happens before them
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def sample():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@BOTH
@torch.no_grad()
def test_timestep_may_be_of_any_integer_kind(options, sample):
    model = made(options)
    want = model(sample, 99).sample
    for dtype in INTEGERS:
        for timestep in (
            torch.tensor(99, dtype=dtype),
            torch.tensor([99], dtype=dtype),
            torch.full((3,), 99, dtype=dtype),
        ):
            assert torch.equal(model(sample, timestep).sample, want), timestep
    with pytest.raises(ValueError, match="got 2 timesteps for 3 images; give one, or one an image"):
        model(sample, torch.tensor([1, 2]))


@BOTH
@torch.no_grad()
def test_images_of_a_batch_do_not_mix_in_eval_mode(options, sample):
    model = made(options)
    t = torch.tensor([0, 500, 999])
    whole = model(sample, t).sample
    other = sample.clone()
    other[1] = 1e4  # whatever stands beside it
    assert torch.equal(model(other, t).sample[[0, 2]], whole[[0, 2]])
    for i in range(3):  # other batch sizes take other kernels, which round otherwise
        alone = model(sample[i : i + 1], t[i : i + 1]).sample[0]
        assert torch.allclose(alone, whole[i], rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precisions_compute_in_their_dtype(options, dtype, sample, tmp_path):
    model = made(options)
    want = model(sample, 7).sample
    model.save_pretrained(tmp_path)
    half = PaperUNet2DModel.from_pretrained(tmp_path, torch_dtype=dtype)
    got = half(sample.to(dtype), 7).sample
    assert (half.dtype, got.dtype) == (dtype, dtype)
    error = (got.float() - want).norm() / want.norm()
    assert 0 < error < 16 * torch.finfo(dtype).eps
    assert got.abs().max() > 0


@BOTH
@torch.no_grad()
def test_channels_last_gives_the_same(options, sample):
    model = made(options)
    want = model(sample, 7).sample
    got = model.to(memory_format=torch.channels_last)(sample.contiguous(memory_format=torch.channels_last), 7).sample
    assert torch.allclose(got, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


@BOTH
def test_folders_variants_and_shards_load(options, sample, tmp_path):
    model = made(options)
    model.save_pretrained(tmp_path / "unet", variant="ema", max_shard_size="2KB")
    files = sorted(path.name for path in (tmp_path / "unet").iterdir())
    assert "diffusion_pytorch_model.safetensors.index.ema.json" in files
    assert sum(name.endswith(".safetensors") for name in files) > 1
    assert not any(name.endswith(".bin") for name in files)
    loaded = PaperUNet2DModel.from_pretrained(tmp_path, subfolder="unet", variant="ema")
    for name in inspect.signature(PaperUNet2DModel.__init__).parameters.keys() - {"self"}:
        want = model.config[name]
        assert loaded.config[name] == (list(want) if isinstance(want, tuple) else want), name
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    again = PaperUNet2DModel.from_config(PaperUNet2DModel.load_config(tmp_path, subfolder="unet"))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert json.loads((tmp_path / "unet" / "config.json").read_text())["_class_name"] == "PaperUNet2DModel"


@pytest.fixture
def restored_backend():
    before = _AttentionBackendRegistry._active_backend
    yield
    _AttentionBackendRegistry.set_active_backend(before)


def gradients_and_statistics(model, sample, rounds=2):
    for _ in range(rounds):
        model(sample, 5).sample.square().mean().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return grads, {name: b.clone() for name, b in model.named_buffers()}


@BOTH
@pytest.mark.parametrize("reentrant", [None, True, False], ids=["default", "reentrant", "own"])
def test_gradient_checkpointing_changes_nothing(options, reentrant, sample):
    """Not the gradients, and not BatchNorm's running statistics, which a second forward pass would move twice."""
    plain, checkpointed = made(options).train(), made(options).train()
    own = None
    if reentrant is not None:

        def own(module, *inputs):
            return torch.utils.checkpoint.checkpoint(module.__call__, *inputs, use_reentrant=reentrant)

    calls = []
    for block in checkpointed.down_blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpointed.enable_gradient_checkpointing(own)
    images = sample.requires_grad_()  # the older kind of checkpointing needs an input that does
    want, want_buffers = gradients_and_statistics(plain, images)
    got, got_buffers = gradients_and_statistics(checkpointed, images)
    assert len(calls) == 2 * 2 * len(checkpointed.down_blocks), "each block runs twice a round: it was checkpointed"
    assert got.keys() == want.keys()
    for name in want:
        assert torch.allclose(got[name], want[name], rtol=1e-5, atol=1e-6), name
    for name in want_buffers:
        assert torch.equal(got_buffers[name], want_buffers[name]), name
    if not options:
        moved = dict(made(options).named_buffers())
        assert not torch.equal(
            want_buffers["down_blocks.0.norm1.running_mean"], moved["down_blocks.0.norm1.running_mean"]
        )


def test_xformers_on_a_model_without_attention_is_refused():
    """diffusers' own method succeeds in silence."""
    with pytest.raises(ValueError, match=r"without attention \(attention_levels is empty\)"):
        made({}).enable_xformers_memory_efficient_attention()


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_xformers_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match="xformers"):
        made(BEYOND).enable_xformers_memory_efficient_attention()


@pytest.mark.usefixtures("restored_backend")
def test_switching_xformers_says_what_it_did(caplog):
    model = made(BEYOND)
    model.set_attention_backend("_native_math")
    model.disable_xformers_memory_efficient_attention()
    assert "torch computes attention from now on (layers: 1)" in caplog.text
    assert [m.processor._attention_backend for m in model.modules() if hasattr(m, "processor")] == ["native"]


@pytest.mark.usefixtures("restored_backend")
@torch.no_grad()
def test_attention_backends_of_diffusers_reach_every_layer(sample):
    model = made(BEYOND)
    want = model(sample, 7).sample
    model.set_attention_backend("_native_math")
    assert [m.processor._attention_backend.value for m in model.modules() if hasattr(m, "processor")] == [
        "_native_math"
    ]
    assert torch.allclose(model(sample, 7).sample, want, rtol=1e-5, atol=1e-5)
    model.set_attention_backend("flex")
    assert torch.allclose(model(sample, 7).sample, want, rtol=1e-4, atol=1e-4)
    model.set_attention_backend("native")
    assert torch.equal(model(sample, 7).sample, want)


@BOTH
@torch.no_grad()
def test_layerwise_casting_stores_less_and_computes_alike(options, sample):
    model = made(options)
    want, size = model(sample, 7).sample, model.get_memory_footprint()
    model.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    stored = {name: p.dtype for name, p in model.named_parameters()}
    assert {stored[name] for name in stored if ".norm" in name} == {torch.float32}
    assert stored["conv_out.weight"] == torch.float16
    assert model.get_memory_footprint() < 0.75 * size
    got = model(sample, 7).sample
    assert 0 < (got - want).norm() / want.norm() < 64 * torch.finfo(torch.float16).eps


@BOTH
@pytest.mark.parametrize("offload_type", ["block_level", "leaf_level"])
@torch.no_grad()
def test_group_offload_gives_the_same(options, offload_type, sample):
    """On a CPU the groups go from the CPU to the CPU: hooks and order are what is tested."""
    model = made(options)
    want = model(sample, 7).sample
    more = {"num_blocks_per_group": 1} if offload_type == "block_level" else {}
    model.enable_group_offload(torch.device("cpu"), offload_type=offload_type, **more)
    assert any(hasattr(module, "_diffusers_hook") for module in model.modules())
    assert torch.equal(model(sample, 7).sample, want)


@BOTH
@pytest.mark.slow
@torch.no_grad()
def test_compiled_blocks_give_the_same(options, sample):
    model = made(options)
    want = model(sample, 7).sample
    model.compile_repeated_blocks(fullgraph=True)
    got = model(sample, 7).sample
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4)


@BOTH
@pytest.mark.slow
def test_compiled_training_with_gradient_checkpointing_moves_the_statistics_once(options, sample):
    plain, compiled = made(options).train(), made(options).train()
    compiled.enable_gradient_checkpointing()
    compiled.compile()
    want, want_buffers = gradients_and_statistics(plain, sample)
    got, got_buffers = gradients_and_statistics(compiled, sample)
    for name in want:
        assert torch.allclose(got[name], want[name], rtol=1e-3, atol=1e-4), name
    for name in want_buffers:
        assert torch.allclose(got_buffers[name].float(), want_buffers[name].float(), rtol=1e-4, atol=1e-5), name
