"""Multi-layer perceptrons: costs, gradients and updates, as arithmetic on numpy arrays.

Layers are L(0)…L(E). A matrix A(N) has one row per node and one column per sample; W(N) maps L(N) to L(N+1), one row
per target node. ⊙ is the matrix product and * the element-wise product. This package uses no processes, connections,
clocks or files. Equation numbers are those of "Error back-propagation on a MLP".
"""
