"""Step time, gradient traffic, memory and checkpoints of a run on many devices: arithmetic, nothing is measured here.

Data parallel (DDP): every device has all weights, gradients, moments and averages, and computes its share of a batch;
then the gradients are summed over all of them. `benchmarks.scaling` prints the tables and holds the formulas against
real processes; docs/scaling.md says what they leave out.
"""

import math
from dataclasses import dataclass, replace

BYTES = 4
"""of a weight, a gradient, a moment, an average: float32 under every mixed precision"""
BUCKET, FIRST_BUCKET = 25 * 2**20, 2**20
"""bytes of gradients that DDP sums in one call; the first ones are sent early"""
BACKWARD_SHARE = 2 / 3
"""of a network's operations: a product forwards makes two backwards"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run asks for, whatever it runs on."""

    num_parameters: int
    num_tensors: int
    """that the parameters are in; AdamW keeps a count of 4 bytes for each"""
    buffer_bytes: int = 0
    """BatchNorm's statistics"""
    num_averages: int = 1
    flops_per_image: float
    """forwards and backwards"""
    num_operations: int = 0
    """that the host starts for a pass forwards and backwards, whatever the micro-batch"""
    fixed_activation_bytes: int = 0
    """at a step's peak, whatever the micro-batch: copies of the weights in a lower precision"""
    activation_bytes_per_image: int = 0
    """at a step's peak, of a micro-batch"""
    batch_size: int
    """of a step, over all processes"""
    micro_batch_size: int | None = None
    """of one pass; None: all images of a process"""
    checkpoint_every: int = 1000
    """optimizer steps"""

    @property
    def gradient_bytes(self) -> int:
        """What is summed over the processes in each step."""
        return BYTES * self.num_parameters

    @property
    def most_processes(self) -> int:
        """That have work: each takes a micro-batch at least."""
        return self.batch_size // (self.micro_batch_size or 1)

    def images_a_process(self, world_size: int) -> int:
        """Of a step, on the process that has most.

        Raises: ValueError: more processes than micro-batches.
        """
        if world_size > self.most_processes:
            raise ValueError(
                f"{world_size} processes share {self.most_processes} micro-batches; use at most "
                f"{self.most_processes}, or a larger batch_size"
            )
        micro = self.micro_batch_size or 1
        return micro * math.ceil(self.batch_size // micro / world_size)


@dataclass(frozen=True, kw_only=True)
class Link:
    """Between two neighbours in a ring, one way."""

    bytes_a_second: float
    latency_seconds: float


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the devices and the ways between them do: assumed, or measured by `benchmarks.scaling`."""

    flops_a_second: float
    """that a training step reaches, not the vendor's peak"""
    operation_seconds: float = 0.0
    """of the host, to start one operation: a small network's pass takes no less; 0: counted within the rate"""
    memory_bytes_a_second: float
    """of a device's memory: what the optimizer and the averages are bound by"""
    within: Link
    """devices of a node"""
    between: Link
    """nodes: of each device, which has a network card of its own"""
    devices_a_node: int
    memory_bytes: float
    """of a device"""
    disk_bytes_a_second: float
    """of one process that writes"""
    hash_bytes_a_second: float
    """of SHA-256 in one thread, which follows the writing"""
    num_slots: int | None = None
    """processes that run at full speed at a time, which more of them share: cores; None: a device each"""

    def slowdown(self, world_size: int) -> float:
        """How many processes share a core."""
        return 1.0 if self.num_slots is None else max(1.0, world_size / self.num_slots)


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of an optimizer step, by part."""

    compute: float
    """forwards and backwards"""
    update: float
    """clipping, AdamW, averages"""
    exchange: float
    """the sum of the gradients over all processes"""
    backward: float
    """of the last micro-batch: the part of `compute` that the exchange can hide behind"""

    @property
    def nothing_hidden(self) -> float:
        """The exchange begins when the backward pass is over."""
        return self.compute + self.update + self.exchange

    @property
    def all_hidden(self) -> float:
        """The exchange takes no time while the backward pass runs: DDP's buckets, at their best."""
        return self.compute + self.update + max(0.0, self.exchange - self.backward)


def ring_bytes(size: float, world_size: int) -> float:
    """That each process sends to sum `size` bytes over all of them, as a ring or as halves that any exchange of shares
    has: every process sums one share, (W-1)/W of the bytes, then all get all shares, as much again."""
    return 2 * (world_size - 1) / world_size * size


def ring_seconds(size: float, world_size: int, link: Link, calls: int = 1) -> float:
    """Of that sum over one kind of link: 2 (W-1) messages a call, one after the other."""
    return ring_bytes(size, world_size) / link.bytes_a_second + calls * 2 * (world_size - 1) * link.latency_seconds


def num_buckets(size: int) -> int:
    """Calls in which DDP sums so many bytes of gradients."""
    return 1 + math.ceil(max(0, size - FIRST_BUCKET) / BUCKET)


def exchange_seconds(size: float, world_size: int, hardware: Hardware, calls: int = 1) -> float:
    """Of a sum over all processes: within each node as a ring, by which every device gets a share; each share over the
    nodes, as a tree up and down, which costs fewer messages and the same bytes; within each node again.

    Args:
        size: bytes.
    """
    here = min(world_size, hardware.devices_a_node)
    num_nodes = math.ceil(world_size / here)
    size *= hardware.slowdown(world_size)  # of the cores that copy and add; a message waits, and needs none
    inside = ring_seconds(size, here, hardware.within, calls)
    outside = ring_bytes(size / here, num_nodes) / hardware.between.bytes_a_second
    return inside + outside + calls * 2 * math.ceil(math.log2(num_nodes)) * hardware.between.latency_seconds


def step_time(job: Job, hardware: Hardware, world_size: int) -> StepTime:
    """Of one optimizer step.

    Raises: ValueError: more processes than micro-batches.
    """
    images = job.images_a_process(world_size)
    slowdown = hardware.slowdown(world_size)
    of_pass = min(images, job.micro_batch_size or images)
    least = job.num_operations * hardware.operation_seconds
    a_pass = max(of_pass * job.flops_per_image / hardware.flops_a_second, least) * slowdown
    exchange = 0.0
    if world_size > 1:
        exchange = exchange_seconds(job.gradient_bytes, world_size, hardware, num_buckets(job.gradient_bytes))
        exchange += exchange_seconds(BYTES, world_size, hardware)  # whether any process saw a step to be left out
    return StepTime(
        compute=images // of_pass * a_pass,
        update=update_bytes(job) / hardware.memory_bytes_a_second * slowdown,
        exchange=exchange,
        backward=BACKWARD_SHARE * a_pass,
    )


def update_bytes(job: Job) -> int:
    """Read and written after the backward pass: the norm reads a gradient, clipping reads and writes it; AdamW reads
    four values and writes three; an average reads two and writes one."""
    return BYTES * job.num_parameters * (3 + 7 + 3 * job.num_averages)


def kept_bytes(job: Job, shards: int = 1) -> float:
    """Of one process from step to step: weights, gradients, two moments, averages.

    Args:
        shards: processes that these are divided among (FSDP2, averages too); 1: every one has all (DDP).
    """
    copies = 4 + job.num_averages
    return (BYTES * job.num_parameters * copies + job.buffer_bytes * (1 + job.num_averages)) / shards


def peak_bytes(job: Job, world_size: int) -> float:
    """Of one process in a step, under DDP.

    Raises: ValueError: more processes than micro-batches.
    """
    images = job.images_a_process(world_size)
    of_pass = min(images, job.micro_batch_size or images)
    return kept_bytes(job) + job.fixed_activation_bytes + of_pass * job.activation_bytes_per_image


def checkpoint_bytes(job: Job) -> int:
    """Of the tensors on the disk: weights, averages, two moments and AdamW's counts; names and JSON come on top."""
    weights = BYTES * job.num_parameters + job.buffer_bytes
    return weights * (1 + job.num_averages) + 2 * BYTES * job.num_parameters + BYTES * job.num_tensors


def save_seconds(job: Job, hardware: Hardware) -> float:
    """Of one checkpoint: one process writes it, then reads it for the checksums; the others wait."""
    return checkpoint_bytes(job) * (1 / hardware.disk_bytes_a_second + 1 / hardware.hash_bytes_a_second)


def save_share(job: Job, hardware: Hardware, world_size: int) -> float:
    """Of the time, in which all wait for a checkpoint; 0: there is only the last one.

    Raises: ValueError: more processes than micro-batches.
    """
    if not job.checkpoint_every:
        return 0.0
    seconds = save_seconds(job, hardware)
    return seconds / (seconds + job.checkpoint_every * step_time(job, hardware, world_size).nothing_hidden)


def save_host_bytes(job: Job) -> int:
    """Of the writing process's own memory at the worst: the two moments, copied to the host before they are written."""
    return 2 * BYTES * job.num_parameters + BYTES * job.num_tensors


def resume_bytes(job: Job, world_size: int) -> int:
    """Read from the disk at a resume: every process loads the whole checkpoint, which one has checked before."""
    return (world_size + 1) * checkpoint_bytes(job)


def largest_model(memory_bytes: float, num_averages: int, shards: int = 1) -> float:
    """Parameters whose kept bytes alone fill so much memory of a device."""
    return memory_bytes * shards / (BYTES * (4 + num_averages))


def sharded_ring_bytes(job: Job, world_size: int, weight_bytes: int = BYTES) -> float:
    """That each process sends for one micro-batch under FSDP2: the weights are gathered forwards and again backwards,
    the gradients are summed into shares.

    Args:
        weight_bytes: of a weight as it is gathered: 2 in bf16.
    """
    return (world_size - 1) / world_size * job.num_parameters * (2 * weight_bytes + BYTES)


def per_device(job: Job, images: int, world_size: int) -> Job:
    """The same with so many images a device and one pass, so that the batch grows with the devices."""
    return replace(job, batch_size=images * world_size, micro_batch_size=None)
