"""One HTML file with everything in it: needs no network, reads well on a phone and in the dark."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from PIL import Image, UnidentifiedImageError

from lab.errors import LabError
from lab.render.provenance import write_whole
from lab.render.video import smaller_video

MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
MEDIUM, WIDE = 480, 1100  # px: from here on a picture is shrunk on a phone, on a desk, and can be zoomed
NARROWEST_SLIDER = 300  # px: what it says stands beside it
JPEG_QUALITY = 85  # of 95: a tenth of a PNG's bytes
NARROWEST = 160  # px: room for the caption of a small picture, and two of them beside each other on a phone

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Scrub:
    """A video with a slider under it that goes to any of its frames; a GIF plays without one."""

    video: str | Path  # as save_video wrote it ...
    size: tuple[int, int]  # ... and said it is, px
    caption: str
    labels: Sequence[str]  # one a frame: what the slider says there
    fps: float
    start: int = 0  # number of the frame that is shown first


@dataclass(frozen=True)
class Section:
    """One heading of a page with what stands under it, in this order: text, videos, images, table, command."""

    title: str
    text: str = ""  # plain; a blank line starts a paragraph
    images: Sequence[tuple[Image.Image | str | Path, str]] = ()  # (picture or its file, caption and alt text)
    table: Sequence[Mapping[str, Cell]] = ()  # one mapping a row; columns in order of first appearance
    command: str = ""  # what a reader types to make this section again
    scrubs: Sequence[Scrub] = ()  # before the images
    level: int = 2  # of the heading, 2 or 3; at 3 it belongs to the one above, and is not in the table of contents


def page(path: str | Path, title: str, sections: Sequence[Section], lead: str = "", compact: bool = False) -> None:
    """Write a self-contained page; `lead` is plain text under the title.

    compact: for a page that is sent or kept, pictures go in as JPEGs and videos coded anew, where that is smaller.

    Raises:
        LabError: a picture's file is missing or no picture, a video's is missing, or the page cannot be written.
    """
    ids = _ids(sections)
    template = Template(_resource("page.html"))
    # Nothing but this very script may run in the page.
    script = _resource("scrub.js") if any(section.scrubs for section in sections) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = template.substitute(
        script=f"<script>{script}</script>" if script else "",
        script_source=f"'sha256-{digest}'" if script else "'none'",
        title=escape(title),
        lead=_paragraphs(lead),
        contents=_contents(sections, ids),
        sections="\n".join(_section(*pair, compact) for pair in zip(sections, ids, strict=True)),
    )
    write_whole(Path(path), lambda staged: staged.write_text(html, encoding="utf-8"))


def _resource(name: str) -> str:
    return files("lab.render").joinpath(name).read_text(encoding="utf-8")


def _ids(sections: Sequence[Section]) -> list[str]:
    """Readable anchors, numbered so that equal titles stay apart."""
    slugs = (re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in sections)
    return [f"{number}-{slug}".rstrip("-") for number, slug in enumerate(slugs, start=1)]


def _contents(sections: Sequence[Section], ids: Sequence[str]) -> str:
    if len(sections) < 2:
        return ""
    pairs = [pair for pair in zip(sections, ids, strict=True) if pair[0].level == 2]
    links = "".join(f'<li><a href="#{anchor}">{escape(section.title)}</a></li>' for section, anchor in pairs)
    return f'<nav aria-label="Sections"><ol>{links}</ol></nav>'


def _section(section: Section, anchor: str, compact: bool) -> str:
    shown = [_scrub(scrub, compact) for scrub in section.scrubs]
    pictures = [_figure(image, caption, section.title, compact) for image, caption in section.images]
    figures = "\n".join(shown + pictures)
    parts = [
        f'<section id="{anchor}" class="level{section.level}" aria-labelledby="{anchor}-title">',
        f'<h{section.level} id="{anchor}-title">{escape(section.title)}</h{section.level}>',
        _paragraphs(section.text),
        f'<div class="figures">\n{figures}\n</div>' if figures else "",
        _table(section.table, section.title) if section.table else "",
        _command(section.command) if section.command else "",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _paragraphs(text: str) -> str:
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs if paragraph)


def _scrub(scrub: Scrub, compact: bool) -> str:
    """A video at its own size or, where the screen is narrower, shrunk; page.html's script joins it to the slider."""
    path = Path(scrub.video)
    if path.suffix.lower() == ".gif":
        return _figure(path, scrub.caption, scrub.caption)
    try:
        data = smaller_video(path) if compact else path.read_bytes()
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror or error})") from error
    (width, height), name, last = scrub.size, escape(scrub.caption), len(scrub.labels) - 1
    parts = [
        f'<figure class="scrub" style="--width: {max(width, NARROWEST_SLIDER)}px" data-fps="{scrub.fps:g}"',
        f' data-labels="{escape(json.dumps(list(scrub.labels)))}">',
        f'<div class="frame"><video width="{width}" height="{height}" aria-label="{name}" controls muted playsinline',
        f' preload="auto" src="data:video/mp4;base64,{base64.b64encode(data).decode()}"></video></div>',
        '<div class="slider"><button type="button" hidden>Play</button>',
        f'<input type="range" min="0" max="{last}" value="{scrub.start}" aria-label="{name}">',
        f"<output>{escape(scrub.labels[scrub.start])}</output></div>",
        f"<figcaption>{name}</figcaption>\n</figure>",
    ]
    return "\n".join(parts)


def _figure(image: Image.Image | str | Path, caption: str, title: str, compact: bool = False) -> str:
    """A picture at its own size or, where the screen is narrower, shrunk with a box to see it whole."""
    data, mime, (width, height) = _encode(image)
    if compact and mime == MIME["PNG"]:
        data, mime = _smaller(data)
    name = escape(caption or title)
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    scrolls = f' tabindex="0" role="group" aria-label="{name}"' if width > MEDIUM else ""
    parts = [
        f'<figure style="--width: {max(width, NARROWEST)}px">',
        f'<div class="frame"{scrolls}>',
        f'<img src="{source}" width="{width}" height="{height}" alt="{name}"></div>',
        _zoom(width, name) if width > MEDIUM else "",
        f"<figcaption>{escape(caption)}</figcaption>" if caption else "",
        "</figure>",
    ]
    return "\n".join(part for part in parts if part)


def _zoom(width: int, name: str) -> str:
    kind = "wide" if width > WIDE else "medium"
    box = f'<input type="checkbox" aria-label="Full size: {name}">'
    return f'<label class="zoom {kind}">{box} Full size</label>'


def _encode(image: Image.Image | str | Path) -> tuple[bytes, str, tuple[int, int]]:
    """Bytes, media type and (width, height) in px; a file's bytes go in as they are."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, format="png", optimize=True)
        return buffer.getvalue(), MIME["PNG"], image.size
    try:
        data = Path(image).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            return data, MIME[opened.format or ""], opened.size
    except UnidentifiedImageError as error:
        raise LabError(f"{image}: not a picture that a page can show") from error
    except KeyError as error:
        raise LabError(f"{image}: a page shows {', '.join(MIME)}, not {error.args[0]}") from error
    except OSError as error:
        raise LabError(f"{image}: cannot be read ({error.strerror or error})") from error


def _smaller(png: bytes) -> tuple[bytes, str]:
    """The same as a JPEG where that has fewer bytes, and its media type; with whole colours, so that text is sharp."""
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(png)) as opened:
            opened.convert("RGB").save(buffer, format="jpeg", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    except OSError as error:
        raise LabError(f"a picture of the page is damaged ({error}); make it again") from error
    found = buffer.getvalue()
    return (found, MIME["JPEG"]) if len(found) < len(png) else (png, MIME["PNG"])


def _table(rows: Sequence[Mapping[str, Cell]], title: str) -> str:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _align([row.get(name) for row in rows]) for name in names}
    head = "".join(f'<th scope="col"{align}>{escape(name)}</th>' for name, align in columns.items())
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table: {escape(title)}">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(_row(row, columns) for row in rows)}</tbody>\n"
        "</table>\n</div>"
    )


def _row(row: Mapping[str, Cell], columns: Mapping[str, str]) -> str:
    cells = (f"<td{align}>{escape(_text(row.get(name)))}</td>" for name, align in columns.items())
    return f"<tr>{''.join(cells)}</tr>\n"


def _command(command: str) -> str:
    return f'<p class="label">Made by</p>\n<pre tabindex="0"><code>{escape(command)}</code></pre>'


def _align(values: Sequence[Cell]) -> str:
    """Numbers stand at the right; a column with any text in it at the left, as True and False do."""
    texts = [value for value in values if isinstance(value, str | bool)]
    return "" if texts else ' class="number"'


def _text(value: Cell) -> str:
    """Four digits are enough to compare: 207.34 -> 207.3, 12345.6 -> 12,346, 1020 -> 1020."""
    if value is None:
        return "–"
    if isinstance(value, str | bool):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
