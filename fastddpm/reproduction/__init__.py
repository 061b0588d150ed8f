"""The paper's figures drawn and its claims measured, from one command: `fastddpm reproduce`."""

from fastddpm.reproduction.run import reproduce

__all__ = ["reproduce"]
