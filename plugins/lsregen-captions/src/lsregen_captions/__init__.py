"""Captions of a COCO data set for lsregen, by an image-to-text model of transformers."""
