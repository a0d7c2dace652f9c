"""In which precision a device computes."""

import pytest
import torch

from lab.device import computes_bf16
from lab.errors import LabError


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bf16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr("lab.device.hardware_has_bf16", lambda device: has)
    cpu = torch.device("cpu")
    assert computes_bf16("auto", cpu) is has
    assert computes_bf16("bf16", cpu) and not computes_bf16("fp32", cpu)


def test_another_precision_is_refused() -> None:
    with pytest.raises(LabError, match="precision=fp16: use auto, fp32 or bf16"):
        computes_bf16("fp16", torch.device("cpu"))
