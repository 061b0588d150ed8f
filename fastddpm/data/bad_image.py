"""Refusal of a picture."""


class BadImage(ValueError):
    """A picture that cannot be used; the message is the reason, and what to do where something can be done."""
