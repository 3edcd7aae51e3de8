"""Bring your own transactions: foreign CSV and Parquet files, checked, as our table.

`load` reads a file; the errors name the file, the column and the first rows concerned.
"""

from companion.transactions.loading.errors import (
    ColumnError,
    FileFormatError,
    LoadError,
    OptionError,
    ValueInFileError,
)
from companion.transactions.loading.load import Loaded, load

__all__ = [
    "ColumnError",
    "FileFormatError",
    "LoadError",
    "Loaded",
    "OptionError",
    "ValueInFileError",
    "load",
]
