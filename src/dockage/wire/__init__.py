"""I/O helpers over the Stream port that more than one adapter needs: frames, splicing, HTTP/1.1 exchanges."""
