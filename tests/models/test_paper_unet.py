import inspect
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastddpm import PaperUNet2DModel
from fastddpm.models import paper_unet
from fastddpm.models.paper_unet import position_encoding

TINY = {"sample_size": 8, "block_out_channels": (4, 8), "time_embedding_dim": 6}
BEYOND = {"norm_type": "group", "norm_num_groups": 2, "block_type": "residual", "attention_levels": (1,),
          "attention_head_dim": 4, "patch_size": 2, "num_class_embeds": 4}  # fmt: skip


class Listing(nn.Module):
    """A literal reading of the paper's listing for MNIST: names and order are the listing's, not ours."""

    def __init__(self, c1, c2, c3, c4, c5, c6, d):
        super().__init__()

        def convolution(c_in, c_out):
            mlp = nn.Sequential(nn.Linear(d, c_in), nn.ReLU(), nn.Linear(c_in, c_in))
            conv = nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.GELU(),
                nn.Conv2d(c_out, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.GELU(),
            )  # fmt: skip
            return nn.ModuleList([mlp, conv])

        self.layer1 = convolution(c1, c2)
        self.layer2 = convolution(c2, c3)
        self.layer3 = convolution(c3, c4)
        self.up3 = nn.ConvTranspose2d(c4, c5, 2, stride=2)
        self.layer4 = convolution(c3 + c5, c5)
        self.up4 = nn.ConvTranspose2d(c5, c6, 2, stride=2)
        self.layer5 = convolution(c2 + c6, c6)
        self.out = nn.Conv2d(c6, c1, 1)
        self.d = d

    @staticmethod
    def apply_layer(layer, x, position):
        mlp, conv = layer
        return conv(x + mlp(position).reshape(x.shape[0], -1, 1, 1))

    def forward(self, x, t):
        table = torch.zeros(len(t), self.d)
        for i in range(self.d // 2):
            table[:, 2 * i] = torch.sin(t / 10000 ** (2 * i / self.d))
            table[:, 2 * i + 1] = torch.cos(t / 10000 ** (2 * i / self.d))
        skip1 = self.apply_layer(self.layer1, x, table)
        skip2 = self.apply_layer(self.layer2, F.max_pool2d(skip1, 2), table)
        h = self.up3(self.apply_layer(self.layer3, F.max_pool2d(skip2, 2), table))
        h = self.up4(self.apply_layer(self.layer4, torch.cat([skip2, h], 1), table))
        return self.out(self.apply_layer(self.layer5, torch.cat([skip1, h], 1), table))


def copy_into_listing(model: PaperUNet2DModel, listing: Listing) -> None:
    pairs = [
        (model.down_blocks[0], listing.layer1), (model.down_blocks[1], listing.layer2),
        (model.down_blocks[2], listing.layer3), (model.up_blocks[1], listing.layer4),
        (model.up_blocks[0], listing.layer5),
    ]  # fmt: skip
    for ours, (mlp, conv) in pairs:
        mlp.load_state_dict(ours.position_mlp.state_dict())
        for place, part in ((0, ours.conv1), (1, ours.norm1), (3, ours.conv2), (4, ours.norm2)):
            conv[place].load_state_dict(part.state_dict())
    listing.up3.load_state_dict(model.upsamplers[1].state_dict())
    listing.up4.load_state_dict(model.upsamplers[0].state_dict())
    listing.out.load_state_dict(model.conv_out.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_model_is_the_papers_listing(training):
    torch.manual_seed(0)
    model = PaperUNet2DModel(sample_size=28, block_out_channels=(8, 12, 16), time_embedding_dim=10)
    listing = Listing(1, 8, 12, 16, 12, 8, 10)
    copy_into_listing(model, listing)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in listing.parameters())
    model.train(training)
    listing.train(training)
    x, t = torch.randn(3, 1, 28, 28), torch.tensor([0, 299, 999])
    got, want = model(x, t).sample, listing(x, t)
    assert (got - want).abs().max() <= 64 * torch.finfo(torch.float32).eps * want.abs().max()


def test_default_has_the_papers_size_of_two_million_parameters():
    assert sum(p.numel() for p in PaperUNet2DModel(sample_size=28).parameters()) == 2_025_512


def test_position_encoding_interleaves_sin_and_cos():
    table = position_encoding(torch.tensor([0, 7]), 4)
    angles = torch.tensor([7.0, 7.0 / 10000**0.5])
    assert torch.equal(table[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert torch.allclose(table[1], torch.stack([angles.sin(), angles.cos()], 1).flatten())


@pytest.mark.parametrize("options", [{}, BEYOND], ids=["paper", "beyond"])
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 1, 28, 28), (1, 1, 6, 10)])
def test_output_has_the_shape_of_the_input(options, shape):
    model = PaperUNet2DModel(**TINY, **options).eval()
    assert model(torch.randn(shape), 3).sample.shape == shape


@pytest.mark.parametrize("size", [(7, 7), (29, 31), (5, 9)])
def test_odd_sizes_come_back_whole(size):
    model = PaperUNet2DModel(sample_size=7, block_out_channels=(4, 8, 8)).eval()
    assert model(torch.randn(2, 1, *size), 3).sample.shape == (2, 1, *size)


@pytest.mark.parametrize("timestep", [5, torch.tensor(5), torch.tensor([5]), torch.tensor([5, 5], dtype=torch.int32)])
def test_timestep_may_be_a_number_or_a_tensor(timestep):
    torch.manual_seed(0)
    model = PaperUNet2DModel(**TINY).eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(x, timestep).sample, model(x, torch.tensor([5, 5])).sample)


def test_each_image_has_its_own_timestep():
    torch.manual_seed(0)
    model = PaperUNet2DModel(**TINY).eval()
    x = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    mixed = model(x, torch.tensor([0, 900])).sample
    assert not torch.allclose(mixed[0], mixed[1])
    assert torch.allclose(mixed[1], model(x[:1], 900).sample[0], atol=1e-6)


def test_no_labels_mean_the_null_class():
    torch.manual_seed(0)
    model = PaperUNet2DModel(**TINY, **BEYOND)
    nn.init.normal_(model.up_blocks[0].conv2.weight)
    model.eval()
    x = torch.randn(2, 1, 8, 8)
    null = model(x, 5, class_labels=torch.tensor([3, 3])).sample
    assert torch.equal(model(x, 5).sample, null)
    assert not torch.allclose(model(x, 5, class_labels=torch.tensor([0, 1])).sample, null)


def test_return_dict_false_gives_a_tuple():
    model = PaperUNet2DModel(**TINY).eval()
    (sample,) = model(torch.randn(1, 1, 8, 8), 3, return_dict=False)
    assert sample.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_out_channels": ()}, "give one width a level"),
        ({"norm_type": "group"}, r"norm_num_groups \(32\) must divide every one"),
        ({"norm_type": "layer"}, "use 'batch' or 'group'"),
        ({"block_type": "dense"}, "use 'paper' or 'residual'"),
        ({"time_embedding_dim": 7}, "must be even"),
        ({"attention_levels": (2,)}, "must index block_out_channels"),
        ({"attention_levels": (1,), "attention_head_dim": 3}, "a multiple of attention_head_dim"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PaperUNet2DModel(**{**TINY, **options})


def test_images_too_small_for_the_levels_are_refused():
    with pytest.raises(ValueError, match="use fewer levels"):
        PaperUNet2DModel(block_out_channels=(4, 8, 8, 8))(torch.randn(1, 1, 7, 7), 0)


def test_labels_for_an_unconditional_model_are_refused():
    with pytest.raises(ValueError, match="leave class_labels out"):
        PaperUNet2DModel(**TINY)(torch.randn(1, 1, 8, 8), 0, class_labels=torch.tensor([0]))


def test_save_and_load_give_the_same_model(tmp_path):
    model = PaperUNet2DModel(**TINY, **BEYOND).eval()
    model.save_pretrained(tmp_path)
    loaded = PaperUNet2DModel.from_pretrained(tmp_path).eval()
    x = torch.randn(2, 1, 8, 8)
    assert loaded.config.block_type == "residual"
    assert torch.equal(loaded(x, 3).sample, model(x, 3).sample)


def test_model_file_stands_alone(tmp_path):
    """It travels with the weights: it must run where fastddpm is not installed."""
    (tmp_path / "travelling.py").write_text(inspect.getsource(paper_unet))
    code = (
        "import sys; sys.path.insert(0, '.'); sys.modules['fastddpm'] = None; import torch; "
        "from travelling import PaperUNet2DModel; "
        "print(PaperUNet2DModel(block_out_channels=(4, 8))(torch.zeros(1, 1, 8, 8), 1).sample.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "torch.Size([1, 1, 8, 8])" in done.stdout, done.stderr
