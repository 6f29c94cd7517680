"""The service's rivals and limits, one module each: ``train(task)`` does the work in a process of its own."""
