"""Members of a zip from elsewhere, read safely: whole, bounded, checked, never unpacked.

Python reads members compressed with zstd from 3.14 on only, DuckDB everywhere; inspect
writes its logs so.
"""

import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from planner.calibration.import_rows import JSON_BYTES, shown, unreadable
from planner.models.errors import InputError

_ZSTD = 93  # compression method of a member, by the zip specification
_LOCAL_HEADER_BYTES = 30


class ZipMembers:
    """Members of a zip, read whole into memory and never further than JSON_BYTES."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._duckdb: Any = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise unreadable(path, error.strerror or str(error)) from None
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            self._file.close()
            raise unreadable(path, f"truncated or damaged zip: {error}") from None
        # the last of a name counts, as everywhere with zips that were appended to
        self.members = {info.filename: info for info in self._zip.infolist()}

    def read(self, info: zipfile.ZipInfo) -> bytes:
        """The content of a member.

        Raises:
            InputError: It is too large, encrypted, damaged, or compressed in a way that
                cannot be read.
        """
        if info.file_size > JSON_BYTES:
            raise self._off(info, f"it has over {JSON_BYTES >> 20} MiB")
        try:
            if info.compress_type == _ZSTD:
                return self._zstd(info)
            with self._zip.open(info) as member:
                content = member.read(info.file_size + 1)
        except NotImplementedError:
            raise self._off(
                info,
                f"compression method {info.compress_type} is not supported; "
                "`inspect log convert --to json` rewrites the log",
            ) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise self._off(info, str(error)) from None
        if len(content) != info.file_size:
            raise self._off(info, "its size is not the one the zip states")
        return content

    def _zstd(self, info: zipfile.ZipInfo) -> bytes:
        import duckdb

        if self._duckdb is None:
            self._duckdb = duckdb.connect(":memory:", config={"threads": 1})
            self._scratch = tempfile.TemporaryDirectory(prefix="inferplan-import-")
        assert self._scratch is not None  # for the type checker
        staged = Path(self._scratch.name) / "member.json.zst"
        staged.write_bytes(self._compressed(info))
        try:
            found = self._duckdb.execute(
                "SELECT json FROM read_json_objects(?, format = 'unstructured',"
                " compression = 'zstd', maximum_object_size = ?)",
                [str(staged), info.file_size + 1],
            ).fetchall()
        except duckdb.Error as error:
            raise self._off(info, f"damaged: {error}") from None
        content = str(found[0][0]).encode() if len(found) == 1 else b""
        # blank space around the object does not come back
        if len(content) > info.file_size or (
            len(content) == info.file_size and zlib.crc32(content) != info.CRC
        ):
            raise self._off(info, "its checksum does not hold")
        if not content:
            raise self._off(info, "truncated")
        return content

    def _compressed(self, info: zipfile.ZipInfo) -> bytes:
        if info.flag_bits & 1:
            raise self._off(info, "encrypted")
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
            raise self._off(info, "its header is damaged")
        skip = int.from_bytes(header[26:28], "little") + int.from_bytes(
            header[28:30], "little"
        )
        self._file.seek(skip, 1)
        content = self._file.read(min(info.compress_size, JSON_BYTES))
        if len(content) != info.compress_size:
            raise self._off(info, "truncated")
        return content

    def _off(self, info: zipfile.ZipInfo, why: str) -> InputError:
        return unreadable(self.path, f"{shown(info.filename)}: {why}")

    def close(self) -> None:
        """Free the file and the scratch folder."""
        self._zip.close()
        self._file.close()
        if self._duckdb is not None:
            self._duckdb.close()
        if self._scratch is not None:
            self._scratch.cleanup()
