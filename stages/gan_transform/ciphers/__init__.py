"""The ciphers that are compared: uint8 images in, uint8 images out, keys as arguments."""
