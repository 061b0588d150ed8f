"""huggingface_hub, diffusers and datasets against the test Hub, each in a process of its own."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub.conftest import client, contents, pushed, run_python, sent


def test_model_card_push_and_validate(hub, tmp_path):
    client(hub).create_repo("ann/model")
    code = """
from huggingface_hub import ModelCard
card = ModelCard("---\\nlicense: mit\\n---\\n# Pushed\\n")
card.validate()
card.push_to_hub("ann/model")
print(ModelCard.load("ann/model").data.license)
try:
    ModelCard("---\\nlicense: {a: b}\\n---\\n", ignore_metadata_errors=True).validate()
except ValueError as error:
    print(error)
"""
    assert run_python(code, hub.env(tmp_path / "home", "hf_ann")).startswith('"license" must be a string')
    assert hub.files("ann/model")["README.md"].endswith(b"# Pushed\n")


def test_load_dataset_over_http(hub, tmp_path):
    table = pa.table({"label": [0, 1, 2], "text": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "train.parquet")
    api = client(hub)
    api.create_repo("ann/data", repo_type="dataset", private=True)
    api.upload_file(
        path_or_fileobj=tmp_path / "train.parquet", path_in_repo="data/train-0.parquet", repo_id="ann/data",
        repo_type="dataset",
    )  # fmt: skip
    assert "data/train-0.parquet" in hub.files("ann/data", repo_type="dataset")
    code = """
import json
from datasets import load_dataset
whole = load_dataset("ann/data", split="train")
streamed = load_dataset("ann/data", split="train", streaming=True)
assert list(streamed) == whole.to_list()
print(json.dumps(whole.to_list()))
"""
    assert json.loads(run_python(code, hub.env(tmp_path / "home", "hf_ann"))) == table.to_pylist()
    assert sent(hub, "GET", "/storage/datasets/ann/data/")


def test_dataset_pushed_by_datasets_comes_back(hub, tmp_path):
    code = """
from datasets import Dataset, load_dataset
Dataset.from_dict({"x": [1, 2]}).push_to_hub("ann/pushed", private=True)
print(load_dataset("ann/pushed", split="train")["x"][:])
"""
    assert run_python(code, hub.env(tmp_path / "home", "hf_ann")) == "[1, 2]"
    assert hub.repo("ann/pushed", "dataset").is_private


@pytest.mark.slow
def test_stock_pipeline_pushes_and_loads(hub, tmp_path):
    code = """
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
blocks = {"block_out_channels": (4, 4), "norm_num_groups": 2, "layers_per_block": 1}
kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
pipeline = DDPMPipeline(UNet2DModel(sample_size=8, **blocks, **kinds), DDPMScheduler())
pipeline.push_to_hub("ann/pipeline", private=True)
loaded = DiffusionPipeline.from_pretrained("ann/pipeline")
print(type(loaded).__name__, loaded.unet.config.sample_size)
"""
    assert run_python(code, hub.env(tmp_path / "home", "hf_ann")) == "DDPMPipeline 8"
    assert hub.repo("ann/pipeline").is_private
    assert "unet/diffusion_pytorch_model.safetensors" in hub.files("ann/pipeline")


def test_cache_serves_offline(hub, folder, tmp_path):
    pushed(hub, folder)
    code = "from huggingface_hub import snapshot_download; print(snapshot_download('ann/model'))"
    env = hub.env(tmp_path / "home")
    online = run_python(code, env)
    num_requests = len(hub.requests)
    assert run_python(code, {**env, "HF_HUB_OFFLINE": "1"}) == online
    assert len(hub.requests) == num_requests
    assert contents(Path(online)) == hub.files("ann/model")
