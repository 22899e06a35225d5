"""Motion: skeletons read from BVH, written as BVH, GLB and films, drawn as stick figures."""
