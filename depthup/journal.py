"""What a batch wrote into a folder: how a run that was stopped or killed is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from depthup.atomic import remove_left_behind, write_beside
from depthup.data import InputError
from depthup.data.pairing import OUTPUT_MARK

Settings = Mapping[str, str | int | float | bool | None]


def digest(path: Path) -> str:
    """Size and BLAKE2b of a file, as text.

    Raises:
        InputError: it is something else, such as a device or a pipe, which may have no end.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file, expected one")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return f"{path.stat().st_size}-{content.hexdigest()}"


@dataclass(frozen=True)
class Record:
    """One output that is whole, and what it was made from; both as `digest`."""

    output: str
    inputs: str


class Journal:
    """The file `.depthup-batch.jsonl`: the settings of the results, then a line per event.

    An output is announced before it is written, so a run that is killed leaves no file that nobody knows. The lines are
    appended; opening and closing write the file anew, in the order of names, so that equal results give equal journals.

    Args:
        folder: folder of the results.
        settings: what decides the results beside their inputs.
        overwrite: whether results of other settings may be replaced; they are then forgotten.

    Raises:
        InputError: the folder holds results of other settings, or the file cannot be written.
        OSError: the file cannot be read or added to.
    """

    def __init__(self, folder: Path, settings: Settings, overwrite: bool) -> None:
        self._folder, self._path, self._settings = folder, folder / OUTPUT_MARK, dict(settings)
        self.records: dict[str, Record] = {}
        self.unfinished: set[str] = set()
        before = self._read()
        for path in [self._path, *(folder / name for name in self.unfinished)]:
            remove_left_behind(path)
        if before != self._settings and (self.records or self.unfinished):
            if not overwrite:
                raise InputError(f"{folder}: {_difference(before, self._settings)}; use another folder or --overwrite")
            self.records.clear()
            self.unfinished.clear()
        self._write_anew()
        self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Write the file in order; where that fails, for example on a full disk, the lines so far say the same."""
        with suppress(InputError, OSError):
            self._file.close()
            self._write_anew()

    def name(self, output: Path) -> str:
        """An output as the journal calls it."""
        return output.relative_to(self._folder).as_posix()

    def announce(self, output: Path) -> None:
        """Say that an output is about to be written."""
        self.unfinished.add(self.name(output))
        self._append({"writing": self.name(output)})

    def withdraw(self, output: Path) -> None:
        """Say that it was not written, and that what may be there is not ours."""
        self.unfinished.discard(self.name(output))
        self._append({"withdrawn": self.name(output)})

    def record(self, output: Path, inputs: str) -> None:
        """Say that it is written whole."""
        name = self.name(output)
        self.records[name] = Record(digest(output), inputs)
        self.unfinished.discard(name)
        self._append({"written": name} | asdict(self.records[name]))

    def _append(self, event: dict) -> None:
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from None

    def _write_anew(self) -> None:
        lines: list[dict] = [{"settings": self._settings}]
        lines += [{"written": name} | asdict(record) for name, record in sorted(self.records.items())]
        lines += [{"writing": name} for name in sorted(self.unfinished)]
        with write_beside(self._path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def _read(self) -> dict | None:
        """The settings in the file. A damaged line is left out: its output is then one that the journal lacks."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return None
        events = [event for line in lines if isinstance(event := _parsed(line), dict)]
        for event in events:
            match event:
                case {"written": str(name), "output": str(output), "inputs": str(inputs)}:
                    self.records[name] = Record(output, inputs)
                    self.unfinished.discard(name)
                case {"writing": str(name)}:
                    self.unfinished.add(name)
                case {"withdrawn": str(name)}:
                    self.unfinished.discard(name)
        return next((event["settings"] for event in events if isinstance(event.get("settings"), dict)), None)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _difference(before: dict | None, now: dict) -> str:
    if before is None:
        return "holds results whose settings are lost"
    name = next(name for name in sorted(before | now) if before.get(name) != now.get(name) or name not in before)
    was, is_now = (settings.get(name, "unknown") for settings in (before, now))
    return f"holds results with {name} {was}, and this run has {is_now}"
