"""Towers that run without torch: exported once to a file, then computed by ONNX Runtime or OpenVINO.

choice    which runtime and precision compute a tower, and what `auto` means
exports   what an encoder has of exported towers: made when needed, opened when used
store     the files of an export in the cache: whole, and of the encoder that asks
order     what is to be exported, and the process that does it
make      that process, so that the caller never imports torch
graph     a tower of torch → an ONNX file
quantize  an ONNX file in float32 → int8
session   opens an ONNX file with ONNX Runtime
openvino  the same with OpenVINO
tokens    texts → token ids by the `tokenizers` library, as transformers and open_clip give them
measured  what was measured of an encoder's runtimes, from which `auto` chooses
"""
