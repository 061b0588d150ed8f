"""Pages of stacks among pictures: each a picture of its own, named FILE#0, FILE#1, ..., all of a file in one group."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from fastddpm.data.deep import Page
from fastddpm.data.sources.base import Contents, Picture, Pictures, indexed, sources_in
from fastddpm.data.stacks import ENDINGS, at_page, pages_of


def with_pages(contents: Contents) -> Contents:
    """The same pictures, with the pages of each stack in its place."""
    return replace(contents, splits={name: _expanded(pictures) for name, pictures in contents.splits.items()})


def _expanded(pictures: Pictures) -> Pictures:
    files = list(pictures.start_at(0))
    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(_pages_of, files))
    places = [(at, page) for at, found in enumerate(pages) for page in found]

    def picture_at(index: int) -> Picture:
        picture, page = files[places[index][0]], places[index][1]
        if page is None:
            return picture
        group = json.dumps([*sources_in(picture.group or ""), picture.name])
        name = f"{picture.name}#{page.number}"
        return replace(picture, name=name, open=lambda: at_page(picture.open(), page), group=group)

    return replace(indexed(picture_at, len(places)), no_labels=pictures.no_labels)


def _pages_of(picture: Picture) -> Sequence[Page | None]:
    """Pages of a stack; None alone: it is none, or is named as a bad file when it is read."""
    try:
        if picture.name.lower().endswith(ENDINGS):
            with picture.open() as image:
                found = pages_of(image)
            return found if [page.number for page in found] not in ([], [0]) else [None]
    except Exception:  # as of any broken file
        return [None]
    return [None]
