"""How good predictions are: pure functions of arrays, without a corpus, a network or a device.

What cannot be told from the data is None, never a middling number. `docs/scores.md` has every definition with an
example computed by hand.
"""
