"""Training service: API, controller, stores, parameter server, and the cluster that its processes run on."""
