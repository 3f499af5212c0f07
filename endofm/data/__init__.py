"""From corpora on disk to batches of views on the device.

clips.py says what there is, sampler.py which clips a step takes, stream.py fetches their bytes, decode.py makes
frames of them, views.py makes views of the frames, loader.py runs all of that in worker processes.
"""
