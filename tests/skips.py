"""Which tests may be skipped in CI, by what their reason says, and why that is all right. conftest.py compares.

PYRNN_SKIPS names the run; a skip that it does not list is a failure. Without PYRNN_SKIPS tests may be skipped freely.
"""

PEERS = {
    "No module named 'torch'": "a run of its own has it",
    "No module named 'expecttest'": "torch's own tests need it; a run of its own has it",
    "No module named 'onnxruntime'": "a run of its own has it",
    "No module named 'pandas'": "a run of its own has it",
    "No module named 'ml_dtypes'": "a run of its own has it",
    "No module named 'sklearn'": "a run of its own has it",
    "No module named 'mpi4py'": "a run of its own has it, and mpiexec",
}

MACHINE = {  # and what nobody installs for the tests
    "No module named 'onnxscript'": "torch exports without it, in its older way",
    "No module named 'polars'": "its columns are tried by a like of theirs",
    "No module named 'keras'": "the files that Keras wrote are there",
    "PYRNN_MODELS names no folder of models": "tests/fetch_models.py fetches them where one likes to",
    "No module named 'sktime'": "it wants its own versions of what it needs",
    "SCIPY_ARRAY_API is not set": "a check for estimators that compute with other libraries' arrays",
    "PYRNN_DATA names no folder": "the data are not part of the sources",
    "got empty parameter set for (isa)": "this CPU, or this build, has one instruction set alone",
    "root may write what is write-protected": "CI may be root",
    "only root gives files away": "or may not",
    "no Chromium here": "the pages that move are opened where there is a browser",
    "No module named 'ziglang'": "it compiles the pages' kernels, whose bits are looked at anyway",
    "kernels of 128 bits": "builds of other sets have other bits",
    "no extended attributes here": "not every file system has them",
}

RUNS = {
    "plain": {**PEERS, **MACHINE},  # the README's command
    "peers": MACHINE,  # with torch and onnxruntime
    "oldest": {  # the oldest Python and NumPy
        **PEERS,
        **MACHINE,
        "could not import 'onnx'": "the onnx of an old Python may lack an operator",
    },
}
