"""nablad on Kubernetes: a kustomize base, and a program that makes an overlay from values."""
