"""A decade of crystal graph networks, one file each, on the same sites, bonds and read-outs.

A convolution takes sites [sites, width], bonds [edges, edge_width] and the graph, and returns sites: it is
the whole stack of layers, so that it may carry vectors, messages on bonds or a state of the crystal along.
"""
