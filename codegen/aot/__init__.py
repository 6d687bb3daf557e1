"""Model binaries: libraries with a C interface that need neither Python nor this compiler."""
