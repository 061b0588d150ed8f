"""What `fastddpm demo` is asked for."""

from dataclasses import dataclass

from fastddpm.config import SamplerName

PORT = 7860
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """What `fastddpm demo` is asked for."""

    model: str
    host: str = "127.0.0.1"
    port: int = PORT
    """0: any that is free"""
    scheduler: SamplerName = "dpmsolver++"
    """what the page begins with; all may be chosen there"""
    num_inference_steps: int = 20
    """likewise; of a start below that, as many as the start"""
    normal: str | None = None
    """normal images for the anomaly map: any data.source; None: the run's held-out ones"""
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must be 0 (any that is free) to 65535")
        for name in ("num_inference_steps", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
