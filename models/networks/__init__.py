"""The networks: UNet, autoencoder, text and image encoders, by the module names of diffusers."""
