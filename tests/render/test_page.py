"""A page holds everything, asks for nothing, and says with words what it shows with pictures."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from lab.errors import LabError
from lab.render import Scrub, Section, page, save_video
from lab.render.video import smaller_video

VOID = {"meta", "img", "input", "br", "link"}


class Reader(HTMLParser):
    """Collects tags, and checks that what is opened is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(tmp_path: Path, *sections: Section, title: str = "Flowers", lead: str = "") -> Reader:
    page(tmp_path / "index.html", title, sections, lead=lead)
    return Reader((tmp_path / "index.html").read_text(encoding="utf-8"))


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))


def test_pictures_lie_in_the_page_with_their_size_and_words(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20), (1, 2, 3))
    picture.save(tmp_path / "a.jpg")
    reader = written(tmp_path, Section("Grid", images=[(picture, 'a "red" rose'), (tmp_path / "a.jpg", "")]))
    first, second = reader.all("img")
    assert (first["alt"], second["alt"]) == ('a "red" rose', "Grid")
    assert (first["width"], first["height"]) == ("30", "20")
    assert decoded(first["src"]).tobytes() == picture.tobytes()
    assert base64.b64decode(second["src"].partition(",")[2]) == (tmp_path / "a.jpg").read_bytes()
    assert second["src"].startswith("data:image/jpeg;")
    assert len(reader.all("figcaption")) == 1


def test_a_compact_page_has_jpegs_where_that_is_smaller(tmp_path: Path) -> None:
    grain = Image.effect_noise((60, 40), 40).convert("RGB")  # which PNG can make no smaller
    images = [(grain, "grain"), (Image.new("RGB", (30, 20), (1, 2, 3)), "plain")]
    page(tmp_path / "index.html", "Flowers", [Section("A", images=images)], compact=True)
    noisy, plain = (image["src"] for image in Reader((tmp_path / "index.html").read_text()).all("img"))
    assert noisy.startswith("data:image/jpeg") and plain.startswith("data:image/png")
    shown = decoded(noisy)
    assert shown.size == (60, 40)
    difference = ImageChops.difference(shown.convert("RGB"), grain)
    assert ImageStat.Stat(difference).mean[0] < 8  # of 255


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    section = Section("Grid", "text", [(Image.new("RGB", (2000, 20)), "wide")], [{"a": 1}], "make demo")
    reader = written(tmp_path, section)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link", html)
    policy = next(meta["content"] for meta in reader.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_everything_a_caller_writes_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>$title & more'
    picture = Image.new("RGB", (900, 9))
    section = Section(evil, evil, [(picture, evil)], [{evil: evil}], evil)
    reader = written(tmp_path, section, title=evil, lead=evil)
    assert reader.all("script") == []
    assert reader.all("img")[0]["alt"] == evil
    assert reader.text.count(evil) >= 7


def test_paragraphs_are_parted_by_blank_lines(tmp_path: Path) -> None:
    reader = written(tmp_path, Section("A", "one\nstill one\n\n  two"), lead="zero")
    assert len(reader.all("p")) == 3
    assert "one still one" in reader.text


def test_a_table_takes_its_columns_from_all_rows(tmp_path: Path) -> None:
    rows = [{"run": "a", "fid": 207.3412, "n": 12345}, {"run": "b", "fid": None, "note": "small", "n": 1020}]
    reader = written(tmp_path, Section("Numbers", table=rows))
    assert [cell.get("class", "") for cell in reader.all("th")] == ["", "number", "number", ""]
    assert all(cell["scope"] == "col" for cell in reader.all("th"))
    assert "run fid n note a 207.3 12,345 – b – 1020 small" in reader.text


def test_sections_can_be_reached_by_links_and_keys(tmp_path: Path) -> None:
    wide = Image.new("RGB", (1600, 40))
    reader = written(tmp_path, Section("Same"), Section("Same", images=[(wide, "wide")]), Section("Größe"))
    anchors = [section["id"] for section in reader.all("section")]
    assert len(set(anchors)) == 3
    links = [link["href"].removeprefix("#") for link in reader.all("a")]
    assert links == ["content", *anchors]
    assert all(section["aria-labelledby"] == f"{section['id']}-title" for section in reader.all("section"))
    assert {heading["id"] for heading in reader.all("h2")} == {f"{anchor}-title" for anchor in anchors}
    frames = [division for division in reader.all("div") if division["class"] == "frame"]
    assert len(reader.all("input")) == 1  # the wide picture can be seen at full size ...
    assert frames[0]["tabindex"] == "0"  # ... and scrolled


def test_what_belongs_to_the_section_above_is_not_in_the_contents(tmp_path: Path) -> None:
    sections = [Section("Guidance"), Section("Stills", level=3), Section("Scale")]
    page(tmp_path / "p.html", "Title", sections)
    html = (tmp_path / "p.html").read_text()
    contents = html[html.index("<nav") : html.index("</nav>")]
    assert "Guidance" in contents and "Scale" in contents and "Stills" not in contents
    assert '<h3 id="2-stills-title">Stills</h3>' in html and '<h2 id="3-scale-title">Scale</h2>' in html


def test_the_page_is_ready_for_phones_darkness_and_readers(tmp_path: Path) -> None:
    reader = written(tmp_path, Section("Only"))
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert reader.all("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in reader.all("meta"))
    assert "prefers-color-scheme: dark" in html
    assert len(reader.all("h1")) == len(reader.all("main")) == 1
    assert reader.all("nav") == []  # one section needs no contents


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "cannot be read"),
        ("text.png", b"no picture", "not a picture"),
        ("a.bmp", "BMP", "shows PNG, JPEG, GIF, WEBP, not BMP"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_named(
    tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        Image.new("RGB", (2, 2)).save(path, format=content)
    with pytest.raises(LabError, match=rf"{re.escape(name)}: .*{message}"):
        page(tmp_path / "index.html", "Flowers", [Section("A", images=[(path, "")])])
    assert not (tmp_path / "index.html").exists()


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot be written"):
        page(tmp_path / "file" / "index.html", "Flowers", [])


def test_videos_lie_in_the_page_with_their_labels(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), (20 * n, 0, 0)) for n in range(3)]
    sizes = {name: save_video(frames, tmp_path / name, {}) for name in ("a.mp4", "a.gif")}
    labels = ['s = "0"', "s = 1", "s = 2"]
    scrubs = [Scrub(tmp_path / name, size, "guidance", labels, 12, start=1) for name, size in sizes.items()]
    read = written(tmp_path, Section("One", scrubs=scrubs))
    (figure,) = (tag for tag in read.all("figure") if tag.get("class") == "scrub")
    assert json.loads(figure["data-labels"]) == labels and figure["data-fps"] == "12"
    (video,) = read.all("video")
    assert base64.b64decode(video["src"].partition("base64,")[2]) == (tmp_path / "a.mp4").read_bytes()
    assert (video["width"], video["height"]) == ("64", "48") and "controls" in video
    (slider,) = (tag for tag in read.all("input") if tag["type"] == "range")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert [tag["src"][:15] for tag in read.all("img")] == ["data:image/gif;"]  # a GIF cannot be jumped in


def test_a_compact_page_has_smaller_videos(tmp_path: Path) -> None:
    moving = [Image.effect_noise((64, 48), 40 + n).convert("RGB") for n in range(6)]
    size = save_video(moving, tmp_path / "a.mp4", {}, fps=10)
    scrub = Scrub(tmp_path / "a.mp4", size, "noise", [str(n) for n in range(6)], fps=10)
    page(tmp_path / "index.html", "Flowers", [Section("A", scrubs=[scrub])], compact=True)
    (video,) = Reader((tmp_path / "index.html").read_text()).all("video")
    (tmp_path / "b.mp4").write_bytes(base64.b64decode(video["src"].partition("base64,")[2]))
    assert (tmp_path / "b.mp4").read_bytes() == smaller_video(tmp_path / "a.mp4")


def test_a_video_that_is_missing_is_named(tmp_path: Path) -> None:
    scrub = Scrub(tmp_path / "a.mp4", (8, 8), "c", ["1"], 12)
    with pytest.raises(LabError, match=r"a\.mp4: cannot be read"):
        page(tmp_path / "index.html", "t", [Section("One", scrubs=[scrub])])
