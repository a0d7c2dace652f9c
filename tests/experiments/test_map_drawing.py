"""Marks where they belong, and names that find room beside theirs."""

import torch

from experiments.map_drawing import disc, dots, draw_map, find_room, on_sheet, thumbnails
from lab.clip.colours import COLOURS


def test_names_find_room_beside_a_crowd() -> None:
    draw = torch.Generator().manual_seed(0)
    crowd = 300 + 20 * torch.randn(40, 2, generator=draw, dtype=torch.float64)
    within = torch.tensor([0.0, 0.0, 600.0, 600.0]).double().numpy()
    sizes = torch.tensor([[70.0, 14.0]]).double().expand(40, 2).numpy()
    boxes = torch.from_numpy(find_room(crowd.numpy(), sizes, within))
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], torch.from_numpy(sizes.copy()))
    assert float(boxes.min()) >= 0 and float(boxes.max()) <= 600
    apart = (boxes[:, None, :2] >= boxes[None, :, 2:]) | (boxes[:, None, 2:] <= boxes[None, :, :2])
    assert bool((apart.any(dim=2) | torch.eye(40, dtype=torch.bool)).all())
    on_a_place = (boxes[:, None, :2] < crowd) & (boxes[:, None, 2:] > crowd)
    assert not bool(on_a_place.all(dim=2).any())


def test_marks_stand_where_their_pictures_lie() -> None:
    places = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]])
    red, blue = COLOURS.index("red"), COLOURS.index("blue")
    marks = dots([red, blue, red])
    assert [name for name, _ in marks.legend] == ["red", "blue"]
    sheet = draw_map(places, marks, torch.tensor([[2.0, 1.0]]), ["between"], "title")
    at, height = on_sheet(places.double().numpy())
    assert sheet.width == 1280 and height == 680  # 1200 px across, 600 upwards, and 40 around
    top = sheet.height - 30 - height
    colours = [sheet.getpixel((round(x), round(y) + top)) for x, y in at.tolist()]
    assert colours == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert at[2, 1] < at[0, 1]  # upwards on the map is upwards on the sheet


def test_pictures_are_as_large_as_there_is_room() -> None:
    few, many = thumbnails(torch.zeros(4, 3, 64, 64)), thumbnails(torch.zeros(3000, 3, 8, 8))
    assert few.tiles[0].size == (48, 48) and many.tiles[0].size == (20, 20) and not few.legend
    corner, middle = (disc("#ff0000", 11, "#000000").getpixel((place, place)) for place in (0, 5))
    assert isinstance(corner, tuple) and corner[3] < 10 and middle == (255, 0, 0, 255)
