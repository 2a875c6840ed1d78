"""A student leaves the study: export, ONNX, its model card, prediction, and the released family."""
