"""Make a virtual environment with pip, also where Python came without `ensurepip` (Debian splits it off).

Usage: python3 .ci/make_venv.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path
from urllib.parse import urljoin

PIP = "pip-25.3-py3-none-any.whl"
SHA256 = "9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd"


def main(folder: Path) -> None:
    try:
        venv.create(folder, with_pip=True)
    except (subprocess.CalledProcessError, ImportError):
        venv.create(folder, with_pip=False, clear=True)
        with tempfile.TemporaryDirectory() as scratch:
            wheel = Path(scratch) / PIP
            wheel.write_bytes(download())
            pip = [str(folder / "bin" / "python"), f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)]
            subprocess.run(pip, check=True)


def download() -> bytes:
    """The pinned wheel of pip from the package index that pip itself would ask."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    wanted = urllib.request.Request(index, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(wanted, timeout=60) as answer:
        files = json.load(answer)["files"]
    url = urljoin(index, next(file["url"] for file in files if file["filename"] == PIP))
    with urllib.request.urlopen(url, timeout=60) as answer:
        data: bytes = answer.read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{PIP} from {index} is not the file that was pinned")
    return data


if __name__ == "__main__":
    main(Path(sys.argv[1]))
