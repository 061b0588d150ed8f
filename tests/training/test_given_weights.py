"""Weights that a run starts from, and the process that they were trained by."""

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file

import fastddpm
from fastddpm.data import load_splits
from fastddpm.training.build_network import build_unet
from fastddpm.training.given_weights import follow_process
from tests.conftest import stock_unet
from tests.training.runs import train_here

SMALL = {"block_out_channels": (4, 8), "norm_num_groups": 2}


@pytest.fixture
def config(image_folder, tmp_path):
    def load(source, **settings):
        named = {"output_dir": str(tmp_path / "run"), "data.cache_dir": str(tmp_path / "cache"),
                 "model.architecture": "UNet2DModel"}  # fmt: skip
        named |= {"data.source": str(image_folder), "model.init_from": str(source), "train.num_images_seen": 8}
        named |= {"train.batch_size": 8, "train.num_threads": 1}
        return fastddpm.load_config(None, {**named, **settings})

    return load


def built(config):
    return build_unet(config, load_splits(config.data, seed=0)).state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"num_train_timesteps": 200},
        {"beta_start": 1e-3, "beta_end": 0.03},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    ],
)
def test_the_process_beside_the_weights_is_taken_and_said(config, tmp_path, options, capsys):
    DDPMPipeline(stock_unet(**SMALL), DDPMScheduler(**options)).save_pretrained(tmp_path / "foreign")
    for place in (tmp_path / "foreign", tmp_path / "foreign" / "unet"):
        taken = follow_process(config(place)).scheduler
        assert {name: getattr(taken, name) for name in options} == options
        said = capsys.readouterr().out
        assert all(f"scheduler.{name} {value}" in said for name, value in options.items())
    asked = {f"scheduler.{name}": value for name, value in options.items()}
    assert follow_process(config(tmp_path / "foreign", **asked)).scheduler == taken
    assert not capsys.readouterr().out


def test_another_process_than_the_settings_ask_for_is_refused(config, tmp_path):
    scheduler = DDPMScheduler(num_train_timesteps=200, prediction_type="v_prediction")
    DDPMPipeline(stock_unet(**SMALL), scheduler).save_pretrained(tmp_path / "foreign")
    wanted = r"foreign was trained with scheduler.num_train_timesteps 200 \(asked for: 500\); leave these settings out"
    with pytest.raises(ValueError, match=wanted):
        follow_process(config(tmp_path / "foreign", **{"scheduler.num_train_timesteps": 500}))


@pytest.mark.parametrize(
    "scheduler",
    [EDMEulerScheduler(), FlowMatchEulerDiscreteScheduler(), DDPMScheduler(trained_betas=[0.1, 0.2])],
    ids=["EDM", "flow", "own betas"],
)
def test_a_process_that_no_setting_has_is_refused(config, tmp_path, scheduler):
    stock_unet(**SMALL).save_pretrained(tmp_path / "foreign" / "unet")
    scheduler.save_pretrained(tmp_path / "foreign" / "scheduler")
    with pytest.raises(
        ValueError, match=rf"cannot be set here \({type(scheduler).__name__}, .*; take weights of a DDPM"
    ):
        follow_process(config(tmp_path / "foreign"))


def test_a_run_that_goes_on_keeps_the_process_that_it_took(config, tmp_path, capsys):
    scheduler = DDPMScheduler(num_train_timesteps=200, prediction_type="v_prediction")
    DDPMPipeline(stock_unet(**SMALL), scheduler).save_pretrained(tmp_path / "foreign")
    run = fastddpm.train(config(tmp_path / "foreign", **{"sample.num_inference_steps": 2, "sample.num_images": 4}))
    kept = fastddpm.load_config(run / "config.yaml").scheduler
    assert (kept.num_train_timesteps, kept.prediction_type) == (200, "v_prediction")
    (tmp_path / "foreign").rename(tmp_path / "gone")
    fastddpm.train(config(tmp_path / "foreign", **{"train.num_images_seen": 16, "sample.num_images": 4}))
    assert "going on from step 1" in capsys.readouterr().out
    assert fastddpm.load_config(run / "config.yaml").scheduler == kept


def test_of_a_checkpoint_with_averaged_weights_those_are_taken(config, tmp_path, capsys):
    torch.manual_seed(0)
    plain, averaged = stock_unet(**SMALL), stock_unet(**SMALL)
    plain.save_pretrained(tmp_path / "checkpoint-500" / "unet")
    ema = EMAModel(averaged.parameters(), model_cls=type(averaged), model_config=averaged.config)
    ema.save_pretrained(tmp_path / "checkpoint-500" / "unet_ema")
    DDPMScheduler(num_train_timesteps=200).save_pretrained(tmp_path / "scheduler")  # as the script saves it at its end
    for place in (tmp_path / "checkpoint-500", tmp_path / "checkpoint-500" / "unet_ema"):
        found = built(config(place))
        assert all(torch.equal(tensor, found[name]) for name, tensor in averaged.state_dict().items())
        assert follow_process(config(place)).scheduler.num_train_timesteps == 200
    assert "took unet_ema, the averaged weights, and not unet" in capsys.readouterr().out


def test_half_precision_alone_is_taken_and_said(config, tmp_path, capsys):
    unet = stock_unet(**SMALL).half()
    unet.save_pretrained(tmp_path / "half", variant="fp16")
    found = built(config(tmp_path / "half"))
    assert all(torch.equal(tensor.float(), found[name]) for name, tensor in unet.state_dict().items())
    assert "half has its weights in half precision only" in capsys.readouterr().out
    follow_process(config(tmp_path / "half"))
    assert "half has no scheduler beside it: the settings are taken for its own" in capsys.readouterr().out


def test_a_run_that_has_not_ended_gives_its_averaged_weights_and_its_process(image_folder, tmp_path, capsys):
    with pytest.raises(RuntimeError):
        train_here(tmp_path / "first", image_folder, fail_at=12)
    taken = load_file(tmp_path / "first" / "checkpoints" / "step-00000010" / "ema.safetensors")
    named = {"data.source": str(image_folder), "data.cache_dir": str(tmp_path / "cache"), "output_dir": "unused"}
    config = fastddpm.load_config(None, {**named, "model.init_from": str(tmp_path / "first")})
    assert follow_process(config).scheduler.num_train_timesteps == 20
    found = built(config)
    assert found.keys() == taken.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in taken.items())


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (4, True, "the class embedding begins anew, since its weights are of other classes; all else is taken"),
        (None, True, "the class embedding begins anew"),
        (4, False, "the class embedding is left out: the run learns no classes; all else is taken"),
        (3, True, ""),  # as many, and no names beside them
    ],
)
def test_of_other_classes_the_body_is_taken(config, tmp_path, capsys, there, here, said):
    unet = stock_unet(**SMALL, num_class_embeds=there)
    unet.save_pretrained(tmp_path / "foreign")
    found = built(config(tmp_path / "foreign", **{"model.class_conditional": here}))
    for name, tensor in unet.state_dict().items():
        if not name.startswith("class_embedding."):
            assert torch.equal(tensor, found[name]), name
    assert ("class_embedding.weight" in found) == here
    assert said in (text := capsys.readouterr().out)
    assert said or (not text and torch.equal(found["class_embedding.weight"], unet.class_embedding.weight))


def test_classes_of_other_names_are_other_classes(config, tmp_path, capsys):
    unet = stock_unet(**SMALL, num_class_embeds=3)
    unet.class_embedding.weight.data.fill_(1.0)
    pipeline = fastddpm.FastDDPMPipeline(unet, DDPMScheduler(), null_class=2, label_names=["cat", "dog"])
    pipeline.save_pretrained(tmp_path / "foreign")
    found = built(config(tmp_path / "foreign", **{"model.class_conditional": True}))
    assert not torch.equal(found["class_embedding.weight"], unet.class_embedding.weight)
    assert "the class embedding begins anew, since its weights are of other classes" in capsys.readouterr().out
