"""ONNX: models read and run (`from_onnx`), and layers written (`to_onnx`). Needs the package onnx, the extra `onnx`."""
