"""diffusers' own test suites, run unchanged on our classes: `make check-diffusers DIFFUSERS_SRC=path/to/checkout`.

The suites are not installed with diffusers and not part of this repository: they come from a source checkout. Its
`tests` package is loaded under another name (ours has that one), its library is not: the installed one is judged.
Only what a suite asks its user for is given here: the class, its settings, its inputs.
"""

import importlib
import importlib.util
import os
import re
import sys
import unittest
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler, PaperUNet2DModel
from tests.test_coming_from import FLAGS

SOURCE = os.environ.get("DIFFUSERS_SRC", "")
if not (Path(SOURCE) / "tests" / "models" / "testing_utils").is_dir():
    raise pytest.UsageError(
        f"DIFFUSERS_SRC is {SOURCE!r}; wanted a source checkout of diffusers 0.40 or newer, with its tests/: "
        "make check-diffusers DIFFUSERS_SRC=path/to/diffusers"
    )


def suite(name: str) -> ModuleType:
    """A module of the checkout's `tests` package."""
    if "diffusers_tests" not in sys.modules:
        root = Path(SOURCE) / "tests"
        spec = importlib.util.spec_from_file_location(
            "diffusers_tests", root / "__init__.py", submodule_search_locations=[str(root)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules["diffusers_tests"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["diffusers_tests"])
    return importlib.import_module(f"diffusers_tests.{name}")


suite("testing_utils").enable_full_determinism()
models, common = suite("models.testing_utils"), suite("models.test_modeling_common")
schedulers, pipelines = suite("schedulers.test_scheduler_ddpm"), suite("pipelines.testing_utils")
old_pipelines, parameters = suite("pipelines.test_pipelines_common"), suite("pipelines.pipeline_params")


def test_the_page_for_those_who_come_from_the_example_script_has_all_its_flags():
    script = Path(SOURCE) / "examples" / "unconditional_image_generation" / "train_unconditional.py"
    assert sorted(re.findall(r'add_argument\(\s*"--(\w+)"', script.read_text())) == sorted(FLAGS)


# -- scheduler --------------------------------------------------------------------------------------------------------


class TestFusedDDPMScheduler(schedulers.DDPMSchedulerTest):
    scheduler_classes = (FusedDDPMScheduler,)


# -- model ------------------------------------------------------------------------------------------------------------


class PaperConfig(models.BaseModelTesterConfig):
    """The paper's network: BatchNorm, no attention, no classes."""

    model_class = PaperUNet2DModel
    main_input_name = "sample"
    output_shape = (1, 16, 16)
    settings: dict = {"norm_type": "batch"}  # noqa: RUF012

    def get_init_dict(self):
        return {"sample_size": 16, "block_out_channels": (16, 32), "time_embedding_dim": 16, **self.settings}

    def get_dummy_inputs(self, height=16, width=16):
        generator = torch.Generator().manual_seed(0)
        sample = torch.randn(4, 1, height, width, generator=generator)
        return {"sample": sample, "timestep": torch.tensor([10])}


class ExtendedConfig(PaperConfig):
    """Every option beyond the paper."""

    settings: dict = {  # noqa: RUF012
        "norm_type": "group", "norm_num_groups": 8, "block_type": "residual", "attention_levels": (1,),
        "attention_head_dim": 16, "num_class_embeds": 11,
    }  # fmt: skip

    def get_dummy_inputs(self, height=16, width=16):
        return {**super().get_dummy_inputs(height, width), "class_labels": torch.tensor([0, 3, 9, 10])}


class ModelSuite(models.ModelTesterMixin, common.UNetTesterMixin, models.LayerwiseCastingTesterMixin):
    pass


class TrainingSuite(models.TrainingTesterMixin):
    def test_gradient_checkpointing_is_applied(self):
        super().test_gradient_checkpointing_is_applied(expected_set={"PaperUNet2DModel"})


class TestPaperModel(PaperConfig, ModelSuite):
    pass


class TestPaperTraining(PaperConfig, TrainingSuite):
    pass


class TestPaperMemory(PaperConfig, models.MemoryTesterMixin):
    pass


class TestPaperCompile(PaperConfig, models.TorchCompileTesterMixin):
    pass


class TestExtendedModel(ExtendedConfig, ModelSuite):
    pass


class TestExtendedTraining(ExtendedConfig, TrainingSuite):
    pass


class TestExtendedMemory(ExtendedConfig, models.MemoryTesterMixin):
    pass


class TestExtendedCompile(ExtendedConfig, models.TorchCompileTesterMixin):
    pass


# -- pipeline ---------------------------------------------------------------------------------------------------------


def components() -> dict:
    torch.manual_seed(0)
    unet = PaperUNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), time_embedding_dim=8,
        norm_type="group", norm_num_groups=4, attention_levels=(1,), attention_head_dim=8, num_class_embeds=5,
    )  # fmt: skip
    return {"unet": unet, "scheduler": FusedDDPMScheduler()}


class TestPipeline(pipelines.BasePipelineTesterConfig, pipelines.PipelineTesterMixin):
    pipeline_class = FastDDPMPipeline
    required_input_params_in_call_signature = parameters.CLASS_CONDITIONED_IMAGE_GENERATION_PARAMS
    batch_input_params = parameters.CLASS_CONDITIONED_IMAGE_GENERATION_BATCH_PARAMS
    optional_input_params = pipelines.BasePipelineTesterConfig.optional_input_params - {"num_images_per_prompt"}
    callback_cfg_params = frozenset()
    output_shape = (3, 8, 8)

    def get_dummy_components(self):
        return components()

    def get_dummy_inputs(self):
        return {"class_labels": [1], "generator": self.get_generator(0), "num_inference_steps": 2, "output_type": "pt"}


class TestPipelineMemory(TestPipeline, pipelines.MemoryTesterMixin):
    pass


class TestPipelineOlderSuite(old_pipelines.PipelineTesterMixin, unittest.TestCase):
    pipeline_class = FastDDPMPipeline
    params = parameters.CLASS_CONDITIONED_IMAGE_GENERATION_PARAMS
    batch_params = parameters.CLASS_CONDITIONED_IMAGE_GENERATION_BATCH_PARAMS
    required_optional_params = old_pipelines.PipelineTesterMixin.required_optional_params - {"num_images_per_prompt"}

    def get_dummy_components(self):
        return components()

    def get_dummy_inputs(self, device, seed=0):
        generator = torch.Generator(device).manual_seed(seed)
        return {"class_labels": [1], "generator": generator, "num_inference_steps": 2, "output_type": "np"}
