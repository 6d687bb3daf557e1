"""The collector is left as it was found, also by blocks that end in another order than that of stacks, as threads' do."""

from __future__ import annotations

import gc

import pytest

from tcc.runtime.garbage import uncollected


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_again_after_the_last_block(collects: bool) -> None:
    was = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        one, other = uncollected(), uncollected()
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert not gc.isenabled()
        other.__exit__(None, None, None)
        assert gc.isenabled() is collects
        with pytest.raises(KeyError), uncollected(), uncollected():
            raise KeyError
        assert gc.isenabled() is collects
    finally:
        (gc.enable if was else gc.disable)()
