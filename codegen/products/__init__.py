"""Matrix products: one engine for each dtype, and a plan for each product."""
