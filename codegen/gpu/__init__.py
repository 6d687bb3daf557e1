"""Code for NVIDIA GPUs: placed IR to kernels, PTX, and a program of launches; an emulator that runs kernels on the host."""
