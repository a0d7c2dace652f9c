"""The reference models: what is kept tells all of how it was trained."""

from pathlib import Path

import pytest

from lab.copying import BEFORE, TOLD
from lab.runs import REFERENCE, read_config

MODELS = sorted(path.parent for path in REFERENCE.glob("*/config.yaml"))


@pytest.mark.parametrize("kept", MODELS, ids=[path.name for path in MODELS])
def test_each_stage_of_a_training_is_kept(kept: Path) -> None:
    """An autoencoder whose decoder learned on has the stages before that beside it, to its first."""
    stage, stages = kept, 0
    while True:
        assert [name for name in TOLD if not (stage / name).is_file()] == []
        cfg = read_config(stage)
        if cfg.task != "autoencoder" or cfg.latents.run is None:
            break
        stage, stages = stage / BEFORE, stages + 1
    assert (stages > 0) == (kept / BEFORE).is_dir()
