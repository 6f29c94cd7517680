"""The worker: the mathematics of back-propagation and the process that runs it on tickets."""
