"""What a picture is asked to be: nothing, a class, or a CLIP vector. One protocol, one config group."""

from lab.conditioning.base import Condition, Conditioner, Unconditional
from lab.conditioning.classes import ClassEmbedding
from lab.conditioning.clip import ClipConditioner, ClipVector
from lab.conditioning.clip_tokens import ClipTokens

__all__ = ["ClassEmbedding", "ClipConditioner", "ClipTokens", "ClipVector", "Condition", "Conditioner", "Unconditional"]
