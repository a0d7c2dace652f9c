from collections import Counter

from lab.data.petals_kinds import KINDS, captions, class_name


def test_no_two_kinds_share_colour_count_and_shape() -> None:
    assert len(KINDS) == 40
    assert len({(kind.petal_colour, kind.petal_count, kind.petal_shape) for kind in KINDS}) == 40
    assert len({class_name(kind) for kind in KINDS}) == 40


def test_every_colour_comes_with_several_counts_and_shapes() -> None:
    colours = Counter(kind.petal_colour for kind in KINDS)
    assert len(colours) == 8
    for colour in colours:
        mine = [kind for kind in KINDS if kind.petal_colour == colour]
        assert len({kind.petal_count for kind in mine}) == 5
        assert len({kind.petal_shape for kind in mine}) >= 3


def test_every_count_and_shape_comes_with_several_colours() -> None:
    for factor in ("petal_count", "petal_shape"):
        for value in {getattr(kind, factor) for kind in KINDS}:
            assert len({kind.petal_colour for kind in KINDS if getattr(kind, factor) == value}) >= 2


def test_petals_and_centre_never_share_a_colour() -> None:
    assert all(kind.petal_colour != kind.centre_colour for kind in KINDS)


def test_captions_are_english() -> None:
    orange_heart = next(kind for kind in KINDS if class_name(kind) == "three heart-shaped orange petals")
    first = captions(orange_heart)[0]
    assert first == "an orange flower with three heart-shaped petals and a small brown centre"
    for kind in KINDS:
        assert len(set(captions(kind))) == len(captions(kind))
        for caption in captions(kind):
            assert "{" not in caption
            assert " a orange" not in f" {caption}"
