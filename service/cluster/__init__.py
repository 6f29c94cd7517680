"""Ray, and the process of its own that speaks to it: it may die with Ray while the service goes on."""
