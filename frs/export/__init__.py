"""Export: a student as an ONNX file with its pre- and post-processing, quantised if asked, and its parity gate."""
