"""``ports.PricePolicy``: fixed, by how much of the machine is sold, or pegged to a display unit."""
