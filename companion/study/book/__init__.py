"""The workbook as a book: linked static pages with search, and slides of any notebook.

Nothing is executed. The pages show the outputs that the notebooks store, which the tests keep true,
so a book is made in seconds and reads the same on paper, offline, and where no Python is.

    contents    which pages there are, in reading order
    rendering   a notebook or an answer as HTML, through nbconvert
    links       links between pages, rewritten and checked
    search      the index that the pages' own script searches, from a file as well as from a server
    binding     puts it together
    slides      one notebook as slides
"""

from companion.study.book.binding import Book, build_book
from companion.study.book.contents import BookError, MissingTitleError
from companion.study.book.links import BrokenLinkError
from companion.study.book.rendering import UndescribedFigureError
from companion.study.book.slides import UnknownNotebookError, build_slides

__all__ = [
    "Book",
    "BookError",
    "BrokenLinkError",
    "MissingTitleError",
    "UndescribedFigureError",
    "UnknownNotebookError",
    "build_book",
    "build_slides",
]
