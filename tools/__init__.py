"""The `tcc` command line and the developers' tools."""
