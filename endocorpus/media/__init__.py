"""The only rooms that know libav and ffmpeg: facts of a file, sampled frames, and the one encode pass."""
