"""Signal processing under Theano's names: `tcc.tensor.signal.pool`, `tcc.tensor.signal.downsample`."""

from tcc.tensor.signal import downsample, pool

__all__ = ["downsample", "pool"]
