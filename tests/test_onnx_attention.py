"""ONNX' own test cases for Attention, through onnx_attention.py."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", minversion="1.18")

from onnx_adapter import data_sets, node_cases  # noqa: E402  it needs onnx
from onnx_attention import INPUTS, run  # noqa: E402  it needs onnx

CASES = node_cases(["Attention"])
# Their fourth output is the scores before the softmax (qk_matmul_output_mode 0, 1 and 2), which are never in memory as
# a whole and cannot be asked for; the other outputs are compared. 12 of the 93 cases of onnx 1.23.
SCORES = {
    "test_attention_3d_with_past_and_present_qk_matmul",
    "test_attention_3d_with_past_and_present_qk_matmul_bias",
    "test_attention_3d_with_past_and_present_qk_matmul_softcap",
    "test_attention_4d_with_past_and_present_qk_matmul",
    "test_attention_4d_with_past_and_present_qk_matmul_bias",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal",
    "test_attention_4d_with_qk_matmul",
    "test_attention_4d_with_qk_matmul_bias",
    "test_attention_4d_with_qk_matmul_softcap",
}


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    for node, arrays, expected in data_sets(case):
        given = iter(arrays)
        inputs = {place: np.asarray(next(given)) for place, used in zip(INPUTS, node.input, strict=False) if used}
        outputs = run(node, inputs)
        results = iter(expected)
        for k, (output, wanted) in enumerate(zip(outputs, node.output, strict=False)):
            if not wanted:
                continue
            e = np.asarray(next(results))
            if k == 3 and name in SCORES:
                continue
            assert output.dtype == e.dtype
            rough = {2: 2e-2 if e.dtype.name == "bfloat16" else 2e-3}.get(e.dtype.itemsize, max(case.rtol, 1e-5))
            np.testing.assert_allclose(
                output.astype("f8"), e.astype("f8"), rtol=rough, atol=max(case.atol, rough / 10), err_msg=f"output {k}"
            )
