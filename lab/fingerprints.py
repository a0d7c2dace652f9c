"""What names a network by its weights."""

import hashlib

import torch
from torch import nn


def weights_fingerprint(network: nn.Module) -> str:
    """16 hex digits, SHA-256 of all weights and buffers with their names."""
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
