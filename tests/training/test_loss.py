import pytest
import torch

from fastddpm import FusedDDPMScheduler, draws
from fastddpm.config import TrainConfig
from fastddpm.data import to_unit_range
from fastddpm.training.loss import Objective, focused_distribution

EPS = torch.finfo(torch.float32).eps


class Recorder:
    """Remembers what it was given; predicts zeros."""

    def __call__(self, x_t, timesteps, class_labels=None):
        self.x_t, self.timesteps, self.class_labels = x_t, timesteps, class_labels
        return type("Output", (), {"sample": torch.zeros_like(x_t)})


def objective(*, prediction_type="epsilon", null_class=None, **options):
    config = TrainConfig(**options)
    return Objective(FusedDDPMScheduler(prediction_type=prediction_type), config, null_class, seed=3)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8)
    return images, torch.arange(16) % 3, torch.arange(32, 48)


def test_loss_is_equation_3_on_keyed_noise(batch):
    images, _, positions = batch
    unet = Recorder()
    weighted, plain, timesteps = objective().training(unet, images, None, positions)
    noise = draws.normal(positions, (1, 8, 8), seed=3, stream=draws.Stream.TRAIN_NOISE)
    expected_x_t = FusedDDPMScheduler().add_noise(to_unit_range(images), noise, timesteps)
    assert torch.equal(unet.x_t, expected_x_t)
    assert torch.allclose(plain, noise.square().flatten(1).mean(1), rtol=64 * EPS)
    assert torch.equal(weighted, plain)


def test_an_images_loss_depends_on_its_position_only(batch):
    images, _, positions = batch
    for options in ({}, {"timestep_sampling": "stratified", "batch_size": 16}, {"horizontal_flip": True}):
        whole = objective(**options).training(Recorder(), images, None, positions)
        part = objective(**options).training(Recorder(), images[4:8], None, positions[4:8])
        assert torch.equal(whole[2][4:8], part[2])
        assert torch.allclose(whole[1][4:8], part[1], rtol=4 * EPS)


def test_flips_mirror_about_half_of_the_images(batch):
    images, _, positions = batch
    plain, flipped = Recorder(), Recorder()
    objective().training(plain, images, None, positions)
    objective(horizontal_flip=True).training(flipped, images, None, positions)
    changed = (plain.x_t != flipped.x_t).flatten(1).any(1)
    assert 2 <= changed.sum() <= 14


def test_labels_are_dropped_to_the_null_class(batch):
    images, labels, positions = batch
    unet = Recorder()
    objective(null_class=3, label_dropout=0.5).training(unet, images, labels, positions)
    dropped = unet.class_labels == 3
    assert 2 <= dropped.sum() <= 14
    assert torch.equal(unet.class_labels[~dropped], labels[~dropped])
    objective(null_class=3, label_dropout=0.0).training(unet, images, labels, positions)
    assert torch.equal(unet.class_labels, labels)


def test_unconditional_models_see_no_labels(batch):
    images, labels, positions = batch
    unet = Recorder()
    objective().training(unet, images, labels, positions)
    assert unet.class_labels is None


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_every_prediction_alike_in_terms_of_x_0(prediction_type):
    """min(SNR, gamma) ||x_0 error||^2 = weight * ||prediction error||^2, whatever is predicted."""
    made = objective(prediction_type=prediction_type, min_snr_gamma=5.0)
    t = torch.tensor([0, 50, 300, 999])
    snr = made.scheduler.snr(t)
    x_0_error_per_prediction_error = {"epsilon": 1 / snr, "v_prediction": 1 / (snr + 1), "sample": torch.ones(4)}
    assert torch.allclose(made._weight(t), snr.clamp(max=5) * x_0_error_per_prediction_error[prediction_type])


def test_held_out_loss_is_the_same_each_time(batch):
    images, _, positions = batch
    first, second = (objective().held_out(Recorder(), images, None, positions)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_held_out_noise_is_not_the_training_noise(batch):
    images, _, positions = batch
    training, held_out = Recorder(), Recorder()
    objective().training(training, images, None, positions)
    objective().held_out(held_out, images, None, positions)
    assert not torch.equal(training.timesteps, held_out.timesteps)


def test_focused_timesteps_follow_their_distribution():
    made = objective(timestep_focus=(0.4, 0.1, 0.8), timestep_sampling="stratified", batch_size=64)
    t = made.timesteps(torch.arange(64_000))
    assert (t.min(), t.max()) == (0, 999)
    expected = focused_distribution(1000, 0.4, 0.1, 0.8)
    for edge in (100, 300, 400, 500, 900):
        assert ((t <= edge).double().mean() - expected[edge]).abs() < 0.005
    assert expected[-1] == pytest.approx(1.0)
