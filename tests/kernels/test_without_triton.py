import subprocess
import sys

CODE = """
import sys
sys.modules["triton"] = None  # importing it fails, as on macOS and Windows
import torch, fastddpm
from fastddpm.kernels import triton_or_not
assert triton_or_not.triton is None
assert not triton_or_not.runs_triton(torch.empty(1))
scheduler, positions = fastddpm.FusedDDPMScheduler(), torch.arange(2)
images, t = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 999])
x_t, noise = scheduler.q_sample(images, t, positions, seed=0, stream=0)
prediction = torch.zeros_like(x_t, requires_grad=True)
scheduler.denoising_mse(prediction, images, noise, t).sum().backward()
assert prediction.grad.abs().max() > 0
x_prev, _ = scheduler.reverse_step(x_t, t, x_t, positions=positions)
print(x_prev.shape)
"""


def test_everything_works_without_triton():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2, 1, 4, 4])"
