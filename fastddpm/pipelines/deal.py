"""Which process draws which images: the one rule for previews and for `fastddpm sample`."""


def micro_batch(index: int, num_images: int, size: int) -> range:
    """The places of a micro-batch's images; the last micro-batch may be short."""
    return range(index * size, min((index + 1) * size, num_images))


def dealt(num_images: int, size: int, rank: int, world_size: int) -> range:
    """A rank's micro-batches of `size`, dealt in turn: which ones there are does not depend on the number of ranks."""
    return range(rank, -(-num_images // size), world_size)
