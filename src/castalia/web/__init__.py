"""What every web server of Castalia stands behind: the guard that lets only the right requests in."""
