"""The maths that is worth a kernel of its own.

A file holds the maths, the torch reference, which is the definition, the Triton kernel and the operator;
docs/gpu.md says what each one moves and what was measured.

An operator launches its Triton kernel on CUDA and ROCm tensors. On others it runs the reference, in a form that
torch.compile and torch.export see through; in eager mode on a CPU some have a faster form of the same numbers.
"""
