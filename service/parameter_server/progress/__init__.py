"""Progress of a training: metrics of its epochs, statistics of its steps, events, and when it stops."""
