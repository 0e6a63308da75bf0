"""One model behind OpenAI's chat API, on one machine: transformers' own server, which is told of our class."""

from .server import serve


__all__ = ["serve"]
