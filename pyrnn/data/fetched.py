"""The data sets of the examples: what they are, where they come from, and how they get into a folder of one's own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..core.checks import choice, cut

RAW = "https://raw.githubusercontent.com/"


class DataSet(NamedTuple):
    """A set of files, each with its SHA-256. They are those of one commit, so they stay what they are."""

    place: str  # what an example is given, in the folder
    about: str
    licence: str
    size: int  # bytes; 0 of those that are not fetched
    source: str
    remote: str  # the address of a file, whose name stands for {}; "" of those that are made of what the source has
    files: dict[str, str]  # their places in the folder


SETS = {
    "digits": DataSet(
        place="speech/spoken-digits.npz",
        about="3,000 recordings of spoken digits, as one archive",
        licence="CC BY-SA 4.0",
        size=0,
        source="https://github.com/Jakobovski/free-spoken-digit-dataset",
        remote="",
        files={"speech/spoken-digits.npz": ""},
    ),
    "dna": DataSet(
        place="dna",
        about="yeast genes that contain introns",
        licence="none stated",
        size=331_144,
        source="https://github.com/kmccue/yeast_data",
        remote=RAW + "kmccue/yeast_data/aa8223fd9038437dfa37ba556c04237996229911/GCF_000146045.2_R64_{}",
        files={
            "dna/genes_with_introns.fsa": "e6e5a7bf1dcde2b3ebffbd62eae5573b0a50274163d16baf4e20fe195fb160ed",
            "dna/introns.txt": "f8791f2e94dac7460c405d33d08b142f84ded7be9f811801a7695cb2e2c41565",
        },
    ),
    "music": DataSet(
        place="music",
        about="folk tunes in ABC notation, the Nottingham database",
        licence="GPL-3.0",
        size=446_020,
        source="https://github.com/jukedeck/nottingham-dataset",
        remote=RAW + "jukedeck/nottingham-dataset/0992bb6cd864f6d4b90d6663e08c0ef53ffaa08f/ABC_cleaned/{}",
        files={
            "music/ashover.abc": "6586eea8dca53866b42721050d11fc1408bdb2cf31a902b41c5c13504139b164",
            "music/hpps.abc": "6d035c6972ac0c204ba79d8128e2d71978ece2214a29ffceeb3e053e27f17db5",
            "music/jigs.abc": "5bb6f621e443bde552540810e3ea53e53531fd22258736e338d795e7a5bdcaf5",
            "music/morris.abc": "cbf60b212c87748dea226c76b72a15db5b4f606bb35a580763e9cd8f7294e7da",
            "music/playford.abc": "070877bc37176e0dedbcd038268d6669399201cd7b58d88b4ab36127528f9c76",
            "music/reelsa-c.abc": "f92ed0e66024e0a5bb7d21fe3172cd50c3fb4cb7f642b4ec7cd5aa8ad0396da8",
            "music/reelsd-g.abc": "33f535569116ec8cfb530c112f4cdc3bfb7fc042c271e0317cf6458bad30dfae",
            "music/reelsh-l.abc": "cb701d4ffe6839cb7a5655bc21785ecb71a72ab63d8560f7be3856f6aedaf7e5",
            "music/reelsm-q.abc": "a99f2967cf47460bba70bae40cd355a220b537a87180131c6d9433750bc446a1",
            "music/reelsr-t.abc": "f80a2c0f37a49b9b0c748e922924d59c40d82758abc5b0f7fc9245d7fd563be0",
            "music/reelsu-z.abc": "d104d7d1bb83eb1ca18f6b944dc22cf9f7bfe5f955d07cd573615985f69c2c1f",
            "music/slip.abc": "da686b3a0de20aab38e64f8c8ec57edace980bab6450a6c388d79a2866e5b16a",
            "music/waltzes.abc": "ffa773d012756be17784ab4a84e0e4618f316be5c6f244f9d60c06b23cd812c6",
            "music/xmas.abc": "05ebc4b856c8c5186bb828641e8f88f723c109d47ba7e3f1e5048b536e091249",
        },
    ),
    "names": DataSet(
        place="names",
        about="20,050 surnames in 18 languages",
        licence="MIT",
        size=163_419,
        source="https://github.com/spro/practical-pytorch/tree/master/data/names",
        remote=RAW + "spro/practical-pytorch/c520c52e68e945d88fff563dba1c028b6ec0197b/data/names/{}",
        files={
            "names/Arabic.txt": "6f424a8dbe51cbbbabab7a57d38b617210125e4e3991f3c657cb79b8f104bafc",
            "names/Chinese.txt": "09ba8f1f7e38dbc99372d461b26ad4433b811fc6bfa6a3ecca6fe11a9a777465",
            "names/Czech.txt": "e17ab0ec47616a72c39cb85c783f70c3663ab64488721e5d8378f146d2226be7",
            "names/Dutch.txt": "924f32b635170eae561f84538632138fc07d4c8bbd70ba3fb980de1ecc4d2af3",
            "names/English.txt": "9cca037066d3d5989e24bc01801416162de506b5e28e15b7c092a47905d29bf2",
            "names/French.txt": "81e65b36c60ed5b89a17422f6edcadbb89546f38ad69e960e64e7ba682012a95",
            "names/German.txt": "7449cd590b97a733e18d613a4155decd77ec35dc5f8aadd7a82204dce4f051db",
            "names/Greek.txt": "3555b5186de7f401e6d991b088e9e644ca3099116477818c25ab5793801389e6",
            "names/Irish.txt": "cf8c7013256252a88d2503127b87282a11f21b2ff6db1bded68834c19a1ec058",
            "names/Italian.txt": "f88414c27d0606a11a678b4859277828c2565d6cc4d9ee932deef6e94f3b35e4",
            "names/Japanese.txt": "e0e717e114fec3e7eade4d9dabe0067c475f43147e36a22b47902ee76ad9e67f",
            "names/Korean.txt": "cd54221ccb362a6cba4c78828838cf3268a0e59744767a37cf6ec4b74036b136",
            "names/Polish.txt": "45bab898af2f60ed3a728bbf6980e28821011a7caa53227553b5785903a40826",
            "names/Portuguese.txt": "50a8735f41f4f73757c8ce5b16cb0275cd86b2b214bcbc8c9805f508cb131c53",
            "names/Russian.txt": "0cfe53ac18041e8f63666aa77313e0a3ff378facb132abee052d8ebdc8c3d62c",
            "names/Scottish.txt": "78d0252711d87d948ea86fe34826c51d2d794a8e52d15b5d6f7b6244d45d62dd",
            "names/Spanish.txt": "1bcb462ed3316756a85781d68232bddae04498fdddd5d9219c53fd1fbdeba7a7",
            "names/Vietnamese.txt": "f3f9e4164ab47601178a6e45b216464a64122f49d05541f24bf18a757253281d",
        },
    ),
    "phrases": DataSet(
        place="eng-fra.tsv",
        about="short English phrases and their French",
        licence="CC BY 2.0",
        size=0,
        source="https://www.manythings.org/anki/",
        remote="",
        files={"eng-fra.tsv": ""},
    ),
    "queries": DataSet(
        place="queries",
        about="requests to an assistant with intents and slots",
        licence="CC0",
        size=0,
        source="https://github.com/sonos/nlu-benchmark/tree/master/2017-06-custom-intent-engines",
        remote="",
        files={"queries/test.jsonl": "", "queries/train.jsonl": ""},
    ),
    "sentiment": DataSet(
        place="sentiment",
        about="sentences of film reviews for and against",
        licence="none stated",
        size=0,
        source="https://www.cs.cornell.edu/people/pabo/movie-review-data/",
        remote="",
        files={"sentiment/rt-polarity.neg": "", "sentiment/rt-polarity.pos": ""},
    ),
    "series": DataSet(
        place="",
        about="three series: passengers, temperatures, sunspots",
        licence="none stated",
        size=115_140,
        source="https://github.com/jbrownlee/Datasets",
        remote=RAW + "jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/{}",
        files={
            "airline-passengers.csv": "8cb51be753a718d9be5d76d7e238cc224792754676adc21faa59e954b0201621",
            "daily-min-temperatures.csv": "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da",
            "monthly-sunspots.csv": "c4ec8cc57d9f6fb6ecdb3e1f37f25b6f4badd5124c55931052b0cd2fc3bc71f3",
        },
    ),
    "shakespeare": DataSet(
        place="tinyshakespeare.txt",
        about="1.1 million characters of Shakespeare's plays",
        licence="public domain",
        size=1_115_394,
        source="https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare",
        remote=RAW + "karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
        files={
            "tinyshakespeare.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        },
    ),
}


def folder() -> Path:
    """Where the data sets are kept: what PYRNN_DATA names, else `pyrnn` among what the user's programs cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PYRNN_DATA") or Path(cache) / "pyrnn").absolute()


def kept(name: str) -> Path | None:
    """Where a data set is in the folder, None where it is not there whole."""
    data, here = SETS[name], folder()
    return here / data.place if all((here / file).is_file() for file in data.files) else None


def fetch(name: str) -> Path:
    """Where a data set of the examples lies, a file or a folder; it is fetched if it is not there yet.

    name  one of `pyrnn.data.SETS`; `pyrnn data` lists them with size, licence and source

    The folder is ~/.cache/pyrnn (that of XDG_CACHE_HOME), or what PYRNN_DATA names. Only files of the known SHA-256 get
    into it, whole or not at all; one of that name which is another is left alone, and a ValueError, as is what cannot
    be fetched and an unknown name. Fetching needs the package pooch, else it is an ImportError; what fails on the way
    is an OSError.

        shakespeare = pyrnn.text.read(pyrnn.data.fetch("shakespeare"))
    """
    data, here = SETS[choice("fetch", "name", name, SETS)], folder()
    for file, sha256 in data.files.items():
        path = here / file
        if path.is_file():
            if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                raise ValueError(f"fetch: {path} is not the file of that name of {name!r}: move it away")
        elif not data.remote:
            raise ValueError(f"fetch: {name!r} is made by hand, of what {data.source} has; its place is {path}")
        else:
            _download(data.remote.format(PurePosixPath(file).name), sha256, path)
    return here / data.place


def _download(address: str, sha256: str, path: Path) -> None:
    try:
        import pooch  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError("fetch needs pooch, the extra [data]: pip install pooch") from error
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        pooch.retrieve(address, f"sha256:{sha256}", path.name, path.parent)
    except OSError as error:
        reason = cut(getattr(error.args[0] if error.args else error, "reason", error))  # of all that were tried
        raise OSError(f"fetch: {address} cannot be had: {reason}. From elsewhere it goes to {path}") from error
    except ValueError as error:
        raise ValueError(f"fetch: {address} is not the file that is known: {cut(error)}") from error
    finally:
        logger.setLevel(level)
