"""Signal processing under Theano's names: `tcc.tensor.signal.conv`, `tcc.tensor.signal.pool`, `tcc.tensor.signal.downsample`."""

from tcc.tensor.signal import conv, downsample, pool

__all__ = ["conv", "downsample", "pool"]
