"""The training recipe of the shapeworld models: autoencoder, then text-to-image base, then export. See README.md here."""
