"""The kinds of flower that petals knows, and how English speaks of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The factors that make a class of flowers; a class is told by the first three."""

    petal_colour: str
    petal_count: int
    petal_shape: str
    centre_colour: str
    centre_size: str


# Each colour with five counts and shapes, so that a prompt can ask for a colour, a count or both.
KINDS = (
    Kind("red", 3, "pointed", "yellow", "small"),
    Kind("red", 4, "heart", "yellow", "small"),
    Kind("red", 5, "round", "black", "large"),
    Kind("red", 8, "pointed", "yellow", "large"),
    Kind("red", 12, "narrow", "white", "small"),
    Kind("orange", 3, "heart", "brown", "small"),
    Kind("orange", 4, "ruffled", "yellow", "small"),
    Kind("orange", 6, "round", "red", "small"),
    Kind("orange", 7, "pointed", "brown", "large"),
    Kind("orange", 10, "narrow", "black", "large"),
    Kind("yellow", 4, "round", "orange", "small"),
    Kind("yellow", 5, "heart", "red", "small"),
    Kind("yellow", 6, "pointed", "green", "small"),
    Kind("yellow", 8, "spoon", "brown", "small"),
    Kind("yellow", 12, "narrow", "brown", "large"),
    Kind("green", 3, "round", "purple", "small"),
    Kind("green", 5, "pointed", "white", "small"),
    Kind("green", 6, "spoon", "red", "large"),
    Kind("green", 7, "narrow", "brown", "small"),
    Kind("green", 10, "pointed", "yellow", "large"),
    Kind("blue", 4, "round", "white", "small"),
    Kind("blue", 5, "spoon", "yellow", "large"),
    Kind("blue", 6, "heart", "yellow", "small"),
    Kind("blue", 8, "narrow", "orange", "large"),
    Kind("blue", 10, "pointed", "white", "small"),
    Kind("purple", 3, "heart", "yellow", "small"),
    Kind("purple", 5, "ruffled", "white", "small"),
    Kind("purple", 6, "pointed", "orange", "small"),
    Kind("purple", 7, "round", "yellow", "large"),
    Kind("purple", 12, "narrow", "yellow", "small"),
    Kind("pink", 4, "spoon", "red", "small"),
    Kind("pink", 5, "heart", "yellow", "small"),
    Kind("pink", 6, "ruffled", "purple", "small"),
    Kind("pink", 8, "round", "white", "small"),
    Kind("pink", 10, "narrow", "brown", "large"),
    Kind("white", 3, "round", "yellow", "small"),
    Kind("white", 5, "pointed", "purple", "small"),
    Kind("white", 6, "heart", "orange", "small"),
    Kind("white", 8, "narrow", "yellow", "large"),
    Kind("white", 12, "pointed", "brown", "large"),
)
COUNTS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 10: "ten", 12: "twelve"}
ADJECTIVES = {"heart": "heart-shaped", "spoon": "spoon-shaped"}  # the other shapes are adjectives
TEMPLATES = (
    "{a_colour} flower with {count} {shape} petals and a {size} {centre} centre",
    "{a_colour} flower with {count} {shape} petals",
    "{a_colour} flower with {count} petals",
    "a flower with {count} {shape} {colour} petals and {a_centre} centre",
    "{count} {shape} {colour} petals around a {size} {centre} centre",
    "{a_colour} flower with {shape} petals and {a_centre} centre",
)


def captions(kind: Kind) -> list[str]:
    """All the ways in which a flower of this kind is described."""
    words = {
        "colour": kind.petal_colour,
        "a_colour": _with_article(kind.petal_colour),
        "count": COUNTS[kind.petal_count],
        "shape": _adjective(kind),
        "size": kind.centre_size,
        "centre": kind.centre_colour,
        "a_centre": _with_article(kind.centre_colour),
    }
    return [template.format(**words) for template in TEMPLATES]


def class_name(kind: Kind) -> str:
    """A unique name in the words of the captions, e.g. "five pointed red petals"."""
    return f"{COUNTS[kind.petal_count]} {_adjective(kind)} {kind.petal_colour} petals"


def _adjective(kind: Kind) -> str:
    return ADJECTIVES.get(kind.petal_shape, kind.petal_shape)


def _with_article(colour: str) -> str:
    return f"an {colour}" if colour[0] in "aeiou" else f"a {colour}"
