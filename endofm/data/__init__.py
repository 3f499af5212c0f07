"""From corpora, wherever they lie, to batches of views on the device.

places.py opens corpora, clips.py says what there is, sampler.py and sequential.py which clips a step takes, remote.py
and cache.py bring shards to this machine and prefetch.py those that come next, stream.py reads clips out of them,
decode.py makes frames, views.py makes views of the frames, batches.py runs all of that for a step, loader.py in worker
processes. quarantine.py counts the clips that could not be used.
"""
