import html
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file

import fastddpm
from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel
from fastddpm.models.attention import use_attention_backend
from fastddpm.process import borrowed_process
from fastddpm.training.build_network import check_network
from fastddpm.training.run import open_run
from tests.conftest import stock_unet, tiny_unet

TINY = {
    "model.block_out_channels": [4, 8], "scheduler.num_train_timesteps": 20, "scheduler.beta_end": 0.5,
    "train.batch_size": 8, "train.num_images_seen": 40, "train.mixed_precision": "no", "train.num_threads": 1,
    "sample.num_images": 4, "sample.num_inference_steps": 2,
}  # fmt: skip
STOCK = {"model.architecture": "UNet2DModel", "model.norm_num_groups": 2, "model.layers_per_block": 1}
ATTENDING = {**STOCK, "model.attention_levels": [1], "model.attention_head_dim": 4}


@pytest.fixture
def config(image_folder, tmp_path):
    def load(**settings):
        named = {"output_dir": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache")}
        return fastddpm.load_config(None, {**TINY, **named, "data.source": str(image_folder), **settings})

    return load


SAME_PROCESS = DDPMScheduler(num_train_timesteps=20, beta_end=0.5)
ATTENTION = {"block_out_channels": (4, 8), "norm_num_groups": 2, "attention_head_dim": 4, "dropout": 0.1,
             "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
             "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip


def unet_of(config):
    with borrowed_process(), open_run(config) as run:
        averaged = run.state.ema.model.state_dict()
        assert all(torch.equal(tensor, averaged[name]) for name, tensor in run.state.unet.state_dict().items())
        return run.state.unet


# -- diffusers' own network --------------------------------------------------------------------------------------------


def test_stock_unet_trains_by_config_and_loads_anywhere(config, tmp_path):
    run = fastddpm.train(config(**ATTENDING))
    assert f'DiffusionPipeline.from_pretrained("{run}")' in html.unescape((run / "report.html").read_text())
    assert not list(run.glob("*.py")) + list((run / "unet").glob("*.py")), "it needs no code of ours"
    pipeline = DiffusionPipeline.from_pretrained(run)
    assert (type(pipeline), type(pipeline.unet)) == (DDPMPipeline, UNet2DModel)
    assert pipeline.unet.config.down_block_types == ["DownBlock2D", "AttnDownBlock2D"]
    assert pipeline.unet.config.sample_size == 8
    averaged = load_file(run / "checkpoints" / "step-00000005" / "ema.safetensors")
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in pipeline.unet.state_dict().items())


def test_stock_unet_with_classes_is_saved_with_its_null_class(config):
    run = fastddpm.train(config(**STOCK, **{"model.class_conditional": True, "sample.guidance_scale": 2.0}))
    line = f'DiffusionPipeline.from_pretrained("{run}", trust_remote_code=True)'
    assert line in html.unescape((run / "report.html").read_text())
    index = json.loads((run / "model_index.json").read_text())
    assert (index["_class_name"], index["null_class"]) == (["pipeline", "FastDDPMPipeline"], 2)
    pipeline = FastDDPMPipeline.from_pretrained(run)
    assert (pipeline.num_classes, pipeline.null_class) == (2, 2)
    assert len(pipeline(class_labels=[0, 1, 2], guidance_scale=3.0, num_inference_steps=2).images) == 3
    assert "trust_remote_code=True" in (run / "README.md").read_text()


@pytest.mark.slow
def test_stock_unet_goes_on_where_it_stopped(config, tmp_path):
    settings = {**ATTENDING, "model.class_conditional": True}
    whole = fastddpm.train(config(**settings, output_dir=str(tmp_path / "whole")))
    fastddpm.train(config(**settings, **{"train.num_images_seen": 16}))
    halves = fastddpm.train(config(**settings))
    one, other = (load_file(run / "checkpoints" / "step-00000005" / "model.safetensors") for run in (whole, halves))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_gradient_checkpointing_trains_the_same_network(config, tmp_path):
    """BatchNorm's statistics among it."""
    settings = {"model.time_embedding_dim": 8}
    plain = fastddpm.train(config(**settings))
    saving = {"train.gradient_checkpointing": True, "output_dir": str(tmp_path / "saving")}
    checkpointed = fastddpm.train(config(**settings, **saving))
    one, other = (
        load_file(run / "checkpoints" / "step-00000005" / "model.safetensors") for run in (plain, checkpointed)
    )
    assert any("running_mean" in name for name in one)
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {**STOCK, "model.block_type": "residual"},
            "model.block_type is a setting of PaperUNet2DModel, and this net",
        ),
        (
            {"model.layers_per_block": 1},
            "model.layers_per_block is a setting of UNet2DModel, .*; leave it out",
        ),
        ({**STOCK, "model.norm_num_groups": 3}, r"model.norm_num_groups \(3\) must divide every one of"),
        ({**STOCK, "model.block_out_channels": [4] * 5}, "images are 8x8 .* UNet2DModel with 5 levels needs .* of 16"),
        ({"sample.guidance_scale": 2.0}, "only class-conditional models can follow"),
        ({"scheduler.rescale_betas_zero_snr": True}, "use --scheduler.prediction_type v_prediction or sample"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, settings, message):
    with pytest.raises(ValueError, match=message):
        unet_of(config(**settings))


# -- attention ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_backends_give_a_stock_unet_the_same_predictions():
    torch.manual_seed(0)
    unet = stock_unet(**ATTENTION).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 1, 8, 8)
    want = unet(x, 7).sample
    count = sum(isinstance(module, Attention) for module in unet.modules())
    for backend in ("native", "_native_math"):
        assert use_attention_backend(unet, backend, torch.device("cpu"), torch.float32) == count
        got = unet(x, 7).sample
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-5), backend
    assert count == 4
    assert want.abs().max() > 0.01


@pytest.mark.parametrize("architecture", [ATTENDING, {"model.attention_levels": [1], "model.attention_head_dim": 4}])
def test_a_backend_is_one_field(config, architecture, capsys):
    settings = {**architecture, "model.attention_backend": "_native_math"}
    unet = unet_of(config(**settings))
    assert "_native_math computes" in capsys.readouterr().out
    used = {m.processor._attention_backend.value for m in unet.modules() if hasattr(m, "processor")}
    assert used == {"_native_math"}
    assert unet_of(config(**settings, output_dir=str(config().output_dir) + "-2")) is not unet


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            "xformers",
            "needs the package xformers, .*; run pip|cannot run on cpu in float32: .*; use null",
        ),
        ("flex", "'flex' cannot run on cpu in float32: FlexAttention does not support backward on CPU"),
        ("flash", "'flash' cannot run on cpu in float32: .*flash-attn"),
        ("quick", "is 'quick'; wanted null or one of .*flex.*native.*xformers"),
        ("flash_hub", "run code from the Hub"),
    ],
)
def test_a_backend_that_cannot_run_is_refused_before_anything_is_written(config, backend, message):
    with pytest.raises(ValueError, match=message):
        unet_of(config(**ATTENDING, **{"model.attention_backend": backend}))
    assert not Path(config().output_dir).exists()


def test_a_backend_without_attention_is_refused(config):
    with pytest.raises(ValueError, match="the network has no attention; leave it out, or set model.attention_levels"):
        unet_of(config(**{"model.attention_backend": "native"}))


# -- given weights -----------------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """What diffusers' example script leaves: a stock pipeline of a stock U-Net."""
    torch.manual_seed(5)
    DDPMPipeline(stock_unet(**ATTENTION), SAME_PROCESS).save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


def equal_to(unet, file: Path) -> bool:
    weights = load_file(file)
    return weights.keys() == unet.state_dict().keys() and all(
        torch.equal(tensor, unet.state_dict()[name]) for name, tensor in weights.items()
    )


WEIGHTS = "diffusion_pytorch_model.safetensors"
FROM_WEIGHTS = {"model.block_out_channels": [64, 128, 256]}  # the default: nothing is asked for


def test_weights_of_a_pipeline_are_taken_bit_for_bit(config, foreign):
    unet = unet_of(config(**FROM_WEIGHTS, **{"model.init_from": str(foreign)}))
    assert type(unet) is UNet2DModel
    assert equal_to(unet, foreign / "unet" / WEIGHTS)
    assert unet.config.dropout == 0, "it would draw numbers that no key decides"


def test_weights_of_a_unet_alone_and_of_a_run_of_ours(config, foreign, tmp_path):
    alone = unet_of(config(**FROM_WEIGHTS, **{"model.init_from": str(foreign / "unet")}))
    assert equal_to(alone, foreign / "unet" / WEIGHTS)
    ours = tiny_unet(attention_levels=(1,), attention_head_dim=4)  # BatchNorm: buffers too
    FastDDPMPipeline(ours, FusedDDPMScheduler.from_config(SAME_PROCESS.config)).save_pretrained(tmp_path / "ours")
    settings = {"model.init_from": str(tmp_path / "ours"), "output_dir": str(tmp_path / "run2")}
    unet = unet_of(config(**{**FROM_WEIGHTS, **settings}))
    assert type(unet) is PaperUNet2DModel
    assert equal_to(unet, tmp_path / "ours" / "unet" / WEIGHTS)
    agreeing = {"model.block_out_channels": [4, 8], "model.time_embedding_dim": 8, "output_dir": str(tmp_path / "run3")}
    assert equal_to(unet_of(config(**{**settings, **agreeing})), tmp_path / "ours" / "unet" / WEIGHTS)


@pytest.mark.slow
def test_a_run_from_given_weights_goes_on_without_them(config, foreign, tmp_path):
    settings = {**FROM_WEIGHTS, "model.init_from": str(foreign)}
    whole = fastddpm.train(config(**settings, output_dir=str(tmp_path / "whole")))
    fastddpm.train(config(**settings, **{"train.num_images_seen": 16}))
    foreign.rename(tmp_path / "gone")
    halves = fastddpm.train(config(**settings))
    one, other = (load_file(run / "checkpoints" / "step-00000005" / "model.safetensors") for run in (whole, halves))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_weights_that_do_not_fit_name_the_tensors_and_the_settings(config, foreign, tmp_path):
    other = {"model.block_out_channels": [4, 12], "model.init_from": str(foreign)}
    with pytest.raises(ValueError, match=r"group_norm.bias is 8 there, 12 here; .* settings to the weights") as error:
        unet_of(config(**other))
    assert "block_out_channels is [4, 8] there, (4, 12) here" in str(error.value)
    DDPMPipeline(stock_unet(**ATTENTION, in_channels=3, out_channels=3), SAME_PROCESS).save_pretrained(tmp_path / "rgb")
    with pytest.raises(ValueError, match="rgb is of images with 3 channels, and these have 1; use --data.channels 3"):
        unet_of(config(**FROM_WEIGHTS, **{"model.init_from": str(tmp_path / "rgb")}))


def test_a_config_without_newer_settings_still_follows_the_run(config, foreign):
    """diffusers drops what a config lists as left at its default, also where someone has set it since."""
    path = foreign / "unet" / "config.json"
    options = json.loads(path.read_text())
    for name in ("num_class_embeds", "sample_size"):
        del options[name]
    path.write_text(json.dumps(options))
    of_classes = {"model.init_from": str(foreign), "model.class_conditional": True}
    assert unet_of(config(**FROM_WEIGHTS, **{"model.init_from": str(foreign)})).config.sample_size == 8
    of_classes["output_dir"] = str(foreign.with_name("run2"))
    assert unet_of(config(**FROM_WEIGHTS, **of_classes)).config.num_class_embeds == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model.patch_size": 4},
            "model.patch_size is a setting of PaperUNet2DModel, and this network is a UNet2D",
        ),
        (
            {"data.image_size": 7},
            "needs sides of at least 2 that are multiples of 2; the nearest is --data.image_size 8",
        ),
        ({"model.attention_levels": [0, 1]}, "down_blocks.0.attentions.0.* is missing there"),
    ],
)
def test_settings_that_contradict_the_weights_are_refused(config, foreign, settings, message):
    with pytest.raises(ValueError, match=message):
        unet_of(config(**{**FROM_WEIGHTS, **settings, "model.init_from": str(foreign)}))


def test_what_is_no_source_of_weights_is_refused(config, tmp_path):
    def refused(source, message):
        with pytest.raises(ValueError, match=message):
            unet_of(config(**FROM_WEIGHTS, **{"model.init_from": str(source)}))

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds neither unet/config.json nor config.json")
    refused("nobody/nothing", "is no folder here, and holds no U-Net on the Hub")
    stock_unet(**ATTENTION).save_pretrained(tmp_path / "pickled", safe_serialization=False)
    refused(tmp_path / "pickled", "has no weights as safetensors")
    (tmp_path / "text").mkdir()
    options = {"_class_name": UNet2DConditionModel.__name__}
    (tmp_path / "text" / "config.json").write_text(json.dumps(options))
    refused(tmp_path / "text", "is a UNet2DConditionModel; wanted a PaperUNet2DModel or a UNet2DModel")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data.image_size": 9, "model.patch_size": 2},
            r"images are 9x9 \(height x width\); PaperUNet2DModel with 2 levels needs sides of at least 4 that are "
            "multiples of 2; the nearest is --data.image_size 8, or use fewer model.block_out_channels",
        ),
        (
            {"data.image_size": 9, **STOCK},
            "UNet2DModel with 2 levels needs sides of at least 2 that are multiples of 2; the nearest is "
            "--data.image_size 8",
        ),
        ({"data.center_crop": 1}, "images are 1x1 .*the nearest is --data.image_size 2"),
        ({"data.image_size": [8, 13], "data.channels": 1, **STOCK}, r"8x13 .*nearest is --data.image_size '\[8, 12\]'"),
        ({"data.image_size": [1, 9]}, r"images are 1x9 .*at least 2; the nearest is --data.image_size '\[2, 9\]'"),
        ({"train.random_crop": 1}, "images are 1x1 .*the nearest is --train.random_crop 2"),
        ({"data.image_size": 8, "train.random_crop": 9}, "train.random_crop is 9 and the images are 8x8"),
        ({"model.attention_levels": [1]}, "a multiple of attention_head_dim"),
        (
            {"model.norm_type": "group"},
            r"model.norm_num_groups \(32\) must divide every one of model.block_out_channels",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_told_before_any_image_is_read(config, settings, message):
    with pytest.raises(ValueError, match=message), open_run(config(**{"data.source": "/nowhere", **settings})):
        pass


def test_a_network_with_classes_is_tried_with_a_label(config):
    for network in ({"model.norm_num_groups": 2}, STOCK):
        check_network(config(**{**network, "data.image_size": [8, 12], "model.class_conditional": True}))


def test_weights_that_were_not_told_of_augmentation_go_on_as_they_were(config, tmp_path):
    """And those that were go on without that layer, which would have no gradient."""
    first = fastddpm.train(config(output_dir=str(tmp_path / "first"), **{"train.num_images_seen": 8}))
    told = config(output_dir=str(tmp_path / "told"), **{"model.init_from": str(first), "data.augment.turn": 20})
    unet, source = unet_of(told), FastDDPMPipeline.from_pretrained(first).unet
    assert unet.config.augment_dim == 6
    assert not unet.augment_embedding.weight.any()
    assert all(torch.equal(unet.state_dict()[name], tensor) for name, tensor in source.state_dict().items())
    unet.augment_embedding.weight.data.fill_(1.0)
    unet.save_pretrained(tmp_path / "unet")
    again = unet_of(config(output_dir=str(tmp_path / "again"), **{"model.init_from": str(tmp_path / "unet")}))
    assert again.config.augment_dim == 0
    assert again.state_dict().keys() == source.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in source.state_dict().items())
