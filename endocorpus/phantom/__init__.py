"""A renderer of endoscopy-like video with exact ground truth, in the layout of the real sources.

A tree comes with the label files of its source and with what a naive reader gets wrong (``Trap``).

``render_source`` writes a whole tree, ``render_video`` and ``render_frames`` one recording, ``frames`` keeps it in
memory. A recording is a ``Traits`` value; ``plan_recording`` makes one from a seed. ``load_truth`` reads the truth.
"""

from endocorpus.phantom.overlay import read_frame_counter
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.render import PhantomTree, plan_source, render_frames, render_source, render_video
from endocorpus.phantom.scene import Box, FrameTruth, frames
from endocorpus.phantom.traits import Field, Lesion, Light, Overlay, Polyp, Traits
from endocorpus.phantom.truth import RecordingTruth, Trap, TreeTruth, load_truth, truth_root

__all__ = [
    "Box",
    "Field",
    "FrameTruth",
    "Lesion",
    "Light",
    "Overlay",
    "PhantomTree",
    "Polyp",
    "RecordingTruth",
    "Traits",
    "Trap",
    "TreeTruth",
    "frames",
    "load_truth",
    "plan_recording",
    "plan_source",
    "read_frame_counter",
    "render_frames",
    "render_source",
    "render_video",
    "truth_root",
]
