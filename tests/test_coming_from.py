"""docs/coming-from-train_unconditional.md against the script's flags and our settings."""

import re
from pathlib import Path

import pytest
from diffusers import UNet2DModel

from fastddpm.config import RunConfig, field_names, load_config
from fastddpm.training.build_network import _options

PROJECT = Path(__file__).resolve().parents[1]
PAGE = (PROJECT / "docs" / "coming-from-train_unconditional.md").read_text()

# diffusers 0.42; `make check-diffusers` compares this list with the script itself
FLAGS = """
dataset_name dataset_config_name model_config_name_or_path train_data_dir output_dir overwrite_output_dir cache_dir
resolution center_crop random_flip train_batch_size eval_batch_size dataloader_num_workers num_epochs save_images_epochs
save_model_epochs gradient_accumulation_steps learning_rate lr_scheduler lr_warmup_steps adam_beta1 adam_beta2
adam_weight_decay adam_epsilon use_ema ema_inv_gamma ema_power ema_max_decay push_to_hub hub_token hub_model_id
hub_private_repo logger logging_dir local_rank mixed_precision prediction_type ddpm_num_steps ddpm_num_inference_steps
ddpm_beta_schedule checkpointing_steps checkpoints_total_limit resume_from_checkpoint
enable_xformers_memory_efficient_attention preserve_input_precision
""".split()  # noqa: SIM905


def rows() -> dict[str, str]:
    """flag -> the cell beside it."""
    return dict(re.findall(r"^\| `--(\w+)` \| ([^|]+?) \|", PAGE, re.MULTILINE))


def test_every_flag_of_the_script_has_a_row():
    assert len(FLAGS) == 45
    assert sorted(rows()) == sorted(FLAGS)


def test_every_setting_beside_a_flag_is_one_of_ours():
    known, named = set(field_names(RunConfig)), set()
    for flag, cell in rows().items():
        if cell in ("none", "none yet"):
            continue
        (setting,) = re.fullmatch(r"`([\w.]+)`", cell).groups()
        assert setting in known, flag
        named.add(setting)
    assert len(named) > 20


def test_settings_in_the_text_are_ours():
    for name in re.findall(r"`((?:data|model|scheduler|train|sample|watch)\.\w+)`", PAGE):
        assert name in field_names(RunConfig), name


def test_the_config_is_the_scripts_network_and_optimizer():
    config = load_config("train-unconditional")
    down = ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"]
    script = UNet2DModel(
        sample_size=64, in_channels=3, out_channels=3, layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512), down_block_types=tuple(down),
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
    )  # fmt: skip
    assert sum(p.numel() for p in script.parameters()) == 113_673_219
    for name, value in _options(config.model, "UNet2DModel", config.model.block_out_channels).items():
        assert script.config[name] == value, name
    train = config.train
    assert (train.learning_rate, train.lr_schedule, train.lr_warmup_steps) == (1e-4, "cosine", 500)
    assert (train.adam_betas, train.weight_decay, train.batch_size) == ((0.95, 0.999), 1e-6, 16)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", PAGE))
def test_links_of_the_page_lead_somewhere(link):
    assert (PROJECT / "docs" / link).exists()
