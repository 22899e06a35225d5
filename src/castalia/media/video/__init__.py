"""Video: clips of frames, read from GIF, WebP and films, drawn as strips."""
