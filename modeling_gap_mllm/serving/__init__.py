"""Serving on engines that exist: transformers' server with our class, and scenes as embeddings for stock Qwen3-VL."""

from .scene_encoder import SceneEmbeds, SceneEncoder, to_serving
from .server import serve


__all__ = ["SceneEmbeds", "SceneEncoder", "serve", "to_serving"]
