"""A service with a long queue and a crowd of watchers: what its calls take, and what a training beside it loses."""
