"""Content of a file of weights that other programs wrote: read without running its code, and checked for damage.

What is no file of tensors is named: a pointer of Git LFS, a web page, a packed file.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from study.errors import InputError
from trainables.training.tensor_files import UnreadableFileError, load_tensors

OTHER_CONTENT = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"\x1f\x8b": "packed by gzip: unpack it",
    b"\x93NUMPY": "an array of NumPy",
    b"<": "a web page: download the file again",
    b"{": "a JSON file: give the file of weights that it describes",
}
"""What a file without tensors is, by its first bytes."""

ALLOWED = "allowed are .safetensors and .pth files that contain tensors only"

READ_BYTES = 2**24
"""Part of a file that is read at once to compute its checksum."""

_NUMPY_TYPES = (
    np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8,
    np.uint64, np.uint32, np.uint16, np.uint8, np.bool_, np.str_,
)  # fmt: skip
_NUMPY_OBJECTS: list[Any] = [
    (function, f"numpy.{core}.multiarray.{name}")
    for name, function in (("scalar", np.float64(0).__reduce__()[0]), ("_reconstruct", np.zeros(0).__reduce__()[0]))
    for core in ("_core", "core")  # the names in files of NumPy 2 and of NumPy 1
] + [np.ndarray, np.dtype, *(type(np.dtype(each)) for each in _NUMPY_TYPES)]
"""Numbers and arrays, such as a best accuracy, a history or the state of a generator, which torch.load admits when they
are named; they run no code of the file."""


def read_content(path: Path) -> Any:
    """Return the content of a file by torch.save or safetensors, on the CPU.

    Raises InputError for anything else, for objects whose code would have to run, and for damage that a checksum shows.
    """
    try:
        first = _read_first_bytes(path)
        header_bytes = int.from_bytes(first[:8], "little")
        if first[8:9] == b"{" and header_bytes < path.stat().st_size:  # safetensors, whatever the suffix
            return safetensors.torch.load(path.read_bytes())
        with torch.serialization.safe_globals(_NUMPY_OBJECTS):
            content = load_tensors(path)
    except UnreadableFileError as error:
        if not isinstance(error.__cause__, OSError | EOFError) and (name := _find_object(str(error.__cause__))):
            raise InputError(
                f"teacher file {path} contains {name}, which is code to run and not only tensors: where it was made, "
                "save the weights alone, torch.save(model.state_dict(), 'teacher.pth')"
            ) from None
        raise _make_error(path, str(error)) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise _make_error(path, str(error)) from None
    _check_sums(path)
    return content


def _read_first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file. Raises InputError for what is no file, or is known to have no tensors."""
    if path.exists() and not path.is_file():
        raise InputError(f"teacher file {path} is a folder, pipe or device: give the file")
    with path.open("rb") as file:
        first = file.read(64)
    for start, kind in OTHER_CONTENT.items():
        if first.startswith(start):
            raise InputError(f"teacher file {path} is {kind}; {ALLOWED}")
    return first


def _make_error(path: Path, reason: str) -> InputError:
    return InputError(f"teacher file {path} cannot be read ({''.join(filter(str.isprintable, reason))}): {ALLOWED}")


def _check_sums(path: Path) -> None:
    """Raise InputError if a part of a file by torch.save does not fit its checksum, which torch does not look at.

    Files of older torch have no checksums, and others 0 where they were switched off.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            try:
                if part.CRC:
                    with archive.open(part) as content:
                        while content.read(READ_BYTES):
                            pass
            except zipfile.BadZipFile:
                raise InputError(
                    f"teacher file {path} is damaged: {part.filename} does not fit its checksum; copy it again"
                ) from None


def _find_object(message: str) -> str:
    """Return the class or function that torch refuses to load, from its message; empty if it refuses none."""
    if "TorchScript" in message:
        return "a TorchScript program"
    named = re.search(r"(?:GLOBAL|global|function|class|type) <?(?:class )?'?([\w.]+\.\w+)|GLOBAL (\w+)", message)
    return (named[1] or named[2]) if named else ""
