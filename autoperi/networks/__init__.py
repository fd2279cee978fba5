"""Networks on crystals: layers, embeddings, orbit-reduced network, autoencoder; weights on disk."""
