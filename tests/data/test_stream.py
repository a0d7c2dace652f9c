from collections.abc import Callable

import pytest
import torch

from lab.data import BatchStream, ImageSet
from lab.errors import LabError

MakeSet = Callable[..., ImageSet]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 4, 25])
def test_an_epoch_covers_each_image_once(make_set: MakeSet, batch_size: int) -> None:
    stream = BatchStream(make_set(count=10), batch_size, seed=0)
    steps = -(-30 // batch_size)
    seen = torch.cat([stream.indices(step) for step in range(steps)])[:30].view(3, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in seen)
    assert len({tuple(epoch.tolist()) for epoch in seen}) == 3


def test_a_batch_depends_on_seed_and_step_alone(make_set: MakeSet) -> None:
    images = make_set(count=10)
    walked = BatchStream(images, 4, seed=0)
    for step in range(7):
        walked.batch(step)
    resumed = BatchStream(images, 4, seed=0).batch(7)
    assert torch.equal(walked.batch(7).images, resumed.images)
    assert torch.equal(walked.batch(7).indices, resumed.indices)
    earlier = BatchStream(images, 4, seed=0).batch(2)
    assert torch.equal(walked.batch(2).images, earlier.images)
    assert not torch.equal(resumed.images, BatchStream(images, 4, seed=1).batch(7).images)


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_together_see_what_one_sees(make_set: MakeSet, world: int, class_balanced: bool) -> None:
    images = make_set(count=10, labels=[0, 0, 1, 2, 0, 0, 0, 0, 0, 1])
    stream = BatchStream(images, 6, seed=0, class_balanced=class_balanced)
    for step in (0, 1, 2):  # step 1 crosses the end of an epoch
        whole = stream.batch(step)
        parts = [stream.batch(step, rank, world) for rank in range(world)]
        for field in ("images", "labels", "indices"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


def test_images_are_augmented_views_of_their_indices(make_set: MakeSet) -> None:
    images = make_set(count=10, margin=0, labels=list(range(10)))
    batch = BatchStream(images, 10, seed=0).batch(0)
    upright = images.view(batch.indices)
    same = (batch.images == upright).flatten(1).all(1)
    mirrored = (batch.images == upright.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert torch.equal(batch.labels, batch.indices)
    plain = BatchStream(images, 10, seed=0, flip=False).batch(0)
    assert torch.equal(plain.images, images.view(plain.indices))


def test_flips_and_crops_change_from_step_to_step(make_set: MakeSet) -> None:
    stream = BatchStream(make_set(count=1, margin=3), 64, seed=0)
    assert not torch.equal(stream.batch(0).images, stream.batch(1).images)
    assert len({tuple(image.flatten().tolist()) for image in stream.batch(0).images}) > 20


def test_streams_among_the_same_classes_draw_them_alike(make_set: MakeSet) -> None:
    one = BatchStream(make_set(count=9, labels=[0, 0, 0, 1, 1, 2, 2, 2, 3]), 256, seed=0, class_balanced=True)
    other = BatchStream(make_set(count=4, labels=[1, 3, 3, 5]), 256, seed=0, class_balanced=True)
    shared = one.among(other.image_set.labels), other.among(one.image_set.labels)
    labels = [stream.image_set.labels[stream.indices(3)] for stream in shared]
    assert torch.equal(*labels)
    assert labels[0].unique().tolist() == [1, 3]
    assert one.image_set.labels[one.indices(3)].unique().tolist() == [0, 1, 2, 3]  # the stream itself is as it was


def test_class_balanced_draws_classes_evenly_and_images_within_them(make_set: MakeSet) -> None:
    labels = [0] * 6 + [2] * 2 + [3]  # class 1 has no image
    stream = BatchStream(make_set(count=9, labels=labels), 64, seed=0, class_balanced=True)
    drawn = torch.cat([stream.indices(step) for step in range(100)])
    share = drawn.bincount(minlength=9) / len(drawn)
    expected = torch.tensor([1 / 18] * 6 + [1 / 6] * 2 + [1 / 3])
    assert ((share - expected).abs() < 0.025).all()


def test_epoch_counts_images_seen(make_set: MakeSet) -> None:
    assert BatchStream(make_set(count=10), 4, seed=0).epoch(5) == 2.0


def test_what_cannot_be_drawn_is_refused(make_set: MakeSet) -> None:
    with pytest.raises(LabError, match=r"training\.batch_size=0"):
        BatchStream(make_set(), 0, seed=0)
    with pytest.raises(LabError, match="no images"):
        BatchStream(make_set(count=0), 4, seed=0)
    with pytest.raises(LabError, match="class_balanced=true: random has no classes"):
        BatchStream(make_set(), 4, seed=0, class_balanced=True)
    with pytest.raises(LabError, match=r"training\.batch_size=4: must be a multiple of 3 processes"):
        BatchStream(make_set(), 4, seed=0).batch(0, rank=0, world=3)
