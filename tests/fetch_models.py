"""Fetches the packages whose models tests/test_other_models.py runs, and unpacks them: nothing in them is run.

python tests/fetch_models.py FOLDER
PYRNN_MODELS=FOLDER pytest tests/test_other_models.py
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGES = ("arabic-name-romanizer==0.2.0", "dgaintel==2.3", "g2p-en==2.1.0", "g2pM==0.1.2.5", "reactionrnn==0.1",
            "Resemblyzer==0.1.4", "textgenrnn==2.0.0", "uzmorph-nn==0.1")  # fmt: skip


def main(folder):
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target), package]
        subprocess.run(command, check=True)
    for archive in target.glob("*.whl"):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target)
    for archive in target.glob("*.tar.gz"):
        with tarfile.open(archive) as source:
            source.extractall(target, filter="data")


if __name__ == "__main__":
    main(*sys.argv[1:])
