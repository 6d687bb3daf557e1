"""`tcc.sandbox.rng_mrg`, where Theano has it."""
