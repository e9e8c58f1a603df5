"""Makes wheels of a few hundred bytes for the tests: sound ones, and the parts for unsound ones."""

import base64
import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from recipe.wheel import Wheel


def record_row(name: str, content: bytes) -> str:
    """The line that RECORD has for a file."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    name = f'"{name}"' if "," in name else name
    return f"{name},sha256={digest},{len(content)}\n"


def wheel_files(name: str, version: str, files: Mapping[str, str | bytes], metadata: str) -> dict[str, bytes]:
    """The content of a sound wheel with `files` in it and `metadata` at the end of METADATA."""
    info = f"{name}-{version}.dist-info"
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content |= {key: value.encode() if isinstance(value, str) else value for key, value in files.items()}
    rows = [record_row(key, value) for key, value in content.items()]
    return content | {f"{info}/RECORD": "".join([*rows, f"{info}/RECORD,,\n"]).encode()}


def write_wheel(path: Path, content: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> Path:
    """Write the archive; `modes` of single members, with the file type."""
    with ZipFile(path, "w") as archive:
        for name, data in content.items():
            member = ZipInfo(name)
            member.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(member, data)
    return path


def open_wheel(path: Path) -> Wheel:
    return Wheel.open(path, hashlib.sha256(path.read_bytes()).hexdigest())


def make(
    directory: Path,
    name: str = "demo",
    version: str = "1.0",
    tag: str = "py3-none-any",
    files: Mapping[str, str | bytes] | None = None,
    metadata: str = "",
    modes: Mapping[str, int] | None = None,
) -> Wheel:
    """A sound wheel, written to `directory` and opened."""
    files = {f"{name}.py": "def main():\n    print('hello')\n"} if files is None else files
    content = wheel_files(name, version, files, metadata)
    return open_wheel(write_wheel(directory / f"{name}-{version}-{tag}.whl", content, modes))
