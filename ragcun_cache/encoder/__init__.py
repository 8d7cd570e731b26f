"""From texts to cached vectors: the encoder's identity, its weights, its forward pass, and the encode itself."""

from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.engines import EngineConfig
from ragcun_cache.encoder.pipeline import EncodeReport, encode_collection
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.weights import Weights, fetch_weights, find_weights

__all__ = [
    "EncodeConfig",
    "EncodeReport",
    "EncoderSpec",
    "EngineConfig",
    "Weights",
    "encode_collection",
    "fetch_weights",
    "find_weights",
]
