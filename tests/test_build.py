"""What CXXFLAGS and LDFLAGS say of arithmetic reaches neither the kernels nor the process that imports them, and no
kernel holds code that other instruction sets may come to run."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = (
    "-ffast-math -Ofast -funsafe-math-optimizations -ffinite-math-only -fassociative-math -freciprocal-math "
    "-fno-signed-zeros -fno-trapping-math -ffp-contract=fast -march=native"
)
# Defined by compilers that may change results. __FINITE_MATH_ONLY__ is 0 or 1.
FORBIDDEN = ("__FAST_MATH__", "__ASSOCIATIVE_MATH__", "__RECIPROCAL_MATH__", "__NO_SIGNED_ZEROS__")

pytestmark = [
    pytest.mark.skipif(not (ROOT / "CMakeLists.txt").is_file(), reason="not among the sources"),
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("ninja")), reason="needs CMake and Ninja"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("pybind11", "Cython"))), reason="needs pybind11 and Cython"
    ),
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The build's commands, configured with all of them in the environment: {target: to compile}, [to link]."""
    import pybind11

    folder = tmp_path_factory.mktemp("build")
    environment = {**os.environ, "CXXFLAGS": HOSTILE, "LDFLAGS": HOSTILE}
    given = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *given], check=True, env=environment, capture_output=True
    )
    listed = subprocess.run(["ninja", "-C", folder, "-t", "commands"], check=True, capture_output=True, text=True)
    compile, link = {}, []
    for line in listed.stdout.splitlines():
        words = shlex.split(line)
        if "-c" in words:
            compile.setdefault(Path(words[words.index("-o") + 1]).parts[1], words)
        elif "-shared" in words:
            link.append(words[words.index("&&") + 1 :] if "&&" in words else words)
    return compile, link


def test_flags_of_others_do_not_reach_arithmetic(commands):
    compile, link = commands
    assert {"_core.dir", "cython_stream.dir"} < set(compile)
    assert len(link) == 2
    for target, words in compile.items():
        flags = words[1 : words.index("-o")]
        flags = [f for f in flags if not f.startswith(("-M", "-o", "CMake"))]
        shown = subprocess.run(
            [words[0], *flags, "-dM", "-E", "-x", "c++", os.devnull], check=True, capture_output=True, text=True
        )
        macros = dict([*line.split(maxsplit=2), ""][1:3] for line in shown.stdout.splitlines())
        assert not [macro for macro in FORBIDDEN if macro in macros], target
        assert macros["__FINITE_MATH_ONLY__"] == "0", target
        assert [f for f in flags if f.startswith("-ffp-contract")][-1] == "-ffp-contract=off"
        widest = 512 if "_v4" in target else 256 if "_v3" in target else 128
        if "__x86_64__" in macros:
            assert ("__AVX2__" in macros) == (widest > 128), target
            assert ("__AVX512F__" in macros) == (widest > 256), target


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at a linker of Linux")
def test_importing_leaves_denormals_as_they_are(tmp_path, commands):
    """A module linked as ours are does not set the CPU to flush them."""
    _, link = commands
    source = tmp_path / "nothing.cpp"
    source.write_text("int nothing() { return 0; }\n")
    for k, words in enumerate(link):
        end = words.index("-o")
        module = tmp_path / f"nothing{k}.so"
        subprocess.run([*words[:end], "-fPIC", source, "-o", module], check=True)
        code = f"import ctypes; ctypes.CDLL({str(module)!r}); print(1e-310 * 0.5 > 0, 1e-310 > 0)"
        printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert printed.split() == ["True", "True"]


CHANGED = max((path.stat().st_mtime for path in ROOT.glob("csrc/**/*.[ch]pp")), default=0)
OBJECTS = [  # but for a sanitizer's build, which keeps functions of std beside ours
    path
    for cache in sorted(ROOT.glob("build/**/CMakeCache.txt"))
    if "PYRNN_SANITIZE:BOOL=ON" not in cache.read_text() and "mutants" not in cache.parts
    for path in sorted(cache.parent.glob("CMakeFiles/[kf]*_*/**/*.cpp.o"))  # kernels_* and forms_*
    if path.stat().st_mtime > CHANGED
]


@pytest.mark.skipif(not OBJECTS or not shutil.which("nm"), reason="this checkout has not been built")
@pytest.mark.parametrize("compiled", OBJECTS, ids=lambda path: str(path.relative_to(ROOT / "build")))
def test_instruction_sets_share_no_function(compiled):
    """Of a function that several object files hold the linker takes any, be it for AVX-512 on a CPU without."""
    target = next(part for part in compiled.parts if part.startswith(("kernels_", "forms_")))
    # kernels_x86_64_v4_float.dir, forms_x86_64_v4_dot.dir
    own = re.fullmatch(r"(?:forms|kernels)_(.*?)(?:_float|_double)?\.dir", target)[1]
    listed = subprocess.run(["nm", "--defined-only", compiled], check=True, capture_output=True, text=True).stdout
    shared = [line for line in listed.splitlines() if line.split()[1] == "W"]
    namespace = f"5pyrnn{len(own)}{own}"  # mangled: not every nm can read the names of long lambdas
    assert [line for line in shared if namespace not in line] == []
