"""The Parquet tables of a corpus (DESIGN section 4). A column is a fact with one meaning; comments give its unit."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 5

# `value` is the vocabulary's code, "" where it has none for what the provider wrote, which is `raw`.
_LABELS = pa.list_(pa.struct([pa.field(name, pa.string(), False) for name in ("name", "value", "raw")]))
# Half-open pixels of the displayed picture; half-open frames of the recording.
EDGES = ("left", "top", "right", "bottom")  # of a `records.Box`
_EDGES = [pa.field(name, pa.int32(), False) for name in EDGES]
_RECTANGLE = pa.struct(_EDGES)
_BOX = pa.struct([*(pa.field(name, pa.int64(), False) for name in ("start", "stop")), *_EDGES])
_COUNTS = pa.list_(pa.struct([pa.field("what", pa.string(), False), pa.field("count", pa.int32(), False)]))


def _table(**columns: pa.DataType | tuple[pa.DataType, bool]) -> pa.Schema:
    """Columns are required unless given as `(type, True)`."""
    return pa.schema(
        [
            pa.field(name, kind[0], nullable=kind[1])
            if isinstance(kind, tuple)
            else pa.field(name, kind, nullable=False)
            for name, kind in columns.items()
        ]
    )


RECORDINGS = _table(
    recording_id=pa.string(),
    source=pa.string(),
    path=(pa.string(), True),  # below the raw root; null for a private source
    name=(pa.string(), True),  # as the source's layout names it, which splits and mixtures go by; null if private
    media_kind=pa.string(),  # video | frames
    num_files=pa.int32(),
    case_id=pa.string(),
    case_name=(pa.string(), True),  # what case_id is made of, which leak edges go by; null if private
    case_basis=pa.string(),  # what case_id really means: patient | exam | lesion | recording
    leak_group=pa.string(),  # the only key a splitter may use
    leak_group_name=(pa.string(), True),  # what it is made of, perhaps of a recording that was left out; null for the
    # groups of an owner, which mean nothing outside his corpus
    links=(pa.list_(pa.string()), True),  # hashes of what joins recordings, such as an examination; null if private
    num_frames=pa.int64(),
    rate_num=pa.int32(),  # frames per second of the container
    rate_den=pa.int32(),
    capture_rate_num=(pa.int32(), True),  # where the container's rate lies
    capture_rate_den=(pa.int32(), True),
    variable_rate=pa.bool_(),
    width=pa.int32(),  # pixels as displayed
    height=pa.int32(),
    stored_width=pa.int32(),  # pixels as stored
    stored_height=pa.int32(),
    codec=pa.string(),
    container=pa.string(),
    bytes=(pa.int64(), True),  # of its files; null if private, since it would tell who has the same file
    media_xxh3_128=(pa.string(), True),  # over the media files in their order: equal however they were cut; null if
    # private, since it would tell who has the same file
    labels=_LABELS,
    num_clips=pa.int32(),
)

CLIPS = _table(
    key=pa.string(),  # [a-z0-9-]: WebDataset cuts a name at its first dot
    shard=pa.string(),  # file name below shards/
    mp4_offset=pa.int64(),  # of the member's first data byte in the shard
    mp4_size=pa.int64(),
    mp4_xxh3_128=pa.string(),
    json_offset=pa.int64(),
    json_size=pa.int64(),
    json_xxh3_128=pa.string(),
    masks_offset=(pa.int64(), True),  # of the .npz of label maps; null without masks
    masks_size=(pa.int64(), True),
    masks_xxh3_128=(pa.string(), True),
    source=pa.string(),
    recording_id=pa.string(),
    case_id=pa.string(),
    leak_group=pa.string(),
    start_frame=pa.int64(),  # half-open span in the recording
    stop_frame=pa.int64(),
    stride=pa.int32(),  # source frames per clip frame
    num_frames=pa.int32(),
    rate_num=pa.int32(),  # frames per second of the clip, in the time of the examination
    rate_den=pa.int32(),
    width=pa.int32(),
    height=pa.int32(),
    keyframes=pa.list_(pa.int32()),
    labels=_LABELS,
    quality=pa.struct([pa.field("mean_luma", pa.float32(), False), pa.field("sharpness", pa.float32(), False)]),
    licence=pa.string(),
    consent=pa.string(),  # who vouches for it: provider, or the hospital's consent column
    status=pa.string(),  # ready; `forgotten` tombstones come with deletion
)

# In clip coordinates. Pixels count from the outer edge of the top left pixel, so boxes are half-open.
ANNOTATIONS = _table(
    key=pa.string(),  # clip
    recording_id=pa.string(),
    frame=pa.int32(),  # first frame, counted in the clip
    stop=pa.int32(),  # frame after the last
    kind=pa.string(),  # label | box | polygon | mask | triplet | none: looked at, and nothing found
    name=pa.string(),  # which label, such as finding, instrument, phase
    value=pa.string(),  # code of the vocabulary; "" where it has none
    raw=pa.string(),  # as the provider wrote it
    instance=(pa.int32(), True),  # number of the object on its frame
    xmin=(pa.float32(), True),  # of a box, or around a polygon or mask
    ymin=(pa.float32(), True),
    xmax=(pa.float32(), True),
    ymax=(pa.float32(), True),
    polygon=(pa.list_(pa.float32()), True),  # x0, y0, x1, y1, ...
    mask=(pa.string(), True),  # entry of <key>.masks.npz; the object's pixels have the value instance + 1
    notes=pa.list_(pa.string()),  # such as interpolated, ellipse
    origin=pa.string(),  # label file or, for one file a frame, its folder; below the raw root
)

DEID = _table(
    recording_id=pa.string(),
    status=pa.string(),  # cleared | quarantined
    cleared_by=pa.string(),
    looked_for=pa.list_(pa.string()),
    removed=_COUNTS,
    measures=pa.list_(pa.string()),  # what was done before clips were written
    doubts=pa.list_(pa.string()),  # that the policy of the source lets pass
    crop=_RECTANGLE,  # what clips show, but for what is filled
    boxes=pa.list_(_BOX),  # black over text
    outside=_COUNTS,  # frames by what was found; those that speak against being inside the body may overlap
    outside_frames=pa.int64(),  # left out
    parameters=pa.string(),  # SHA-256 of what was decided, and by which settings and models
    checks=_COUNTS,  # findings of the checks of the finished clips
)

EXCLUDED = _table(
    subject=pa.string(),  # path below the raw root, or a neutral id for a private source
    unit=pa.string(),  # file | recording | annotation
    stage=pa.string(),
    reason=pa.string(),
    detail=pa.string(),
    files=pa.int32(),
    frames=(pa.int64(), True),
)

TABLES: dict[str, pa.Schema] = {
    "recordings": RECORDINGS,
    "clips": CLIPS,
    "annotations": ANNOTATIONS,
    "deid": DEID,
    "excluded": EXCLUDED,
}

# Files beside corpora, not part of one: what is chosen from several of them.

MIX = _table(
    corpus=pa.string(),  # name
    key=pa.string(),
    row=pa.string(),  # title of the row of the mixture
    source=pa.string(),
    recording_id=pa.string(),
    leak_group=pa.string(),
    num_frames=pa.int32(),
    repeats=pa.int32(),  # how often an epoch shows the clip
    mp4_xxh3_128=pa.string(),
)

MIX_EXCLUDED = _table(
    corpus=pa.string(),
    subject=pa.string(),  # recording id
    source=pa.string(),
    leak_group=pa.string(),
    row=(pa.string(), True),  # null where no row of the mixture takes the recording
    reason=pa.string(),  # not-in-mixture | segmentation | leak | set-leak | set-overlap
    of=(pa.string(), True),  # what it would leak into, as it was given
    kind=(pa.string(), True),  # of the edge: identical | contains | overlaps | same-case; itself | group without one
    certainty=(pa.string(), True),  # verified | computed | third-party | unverified
    evidence=pa.string(),
    clips=pa.int32(),
    frames=pa.int64(),
)

SIDES = _table(
    corpus=pa.string(),
    key=pa.string(),  # clip; it has a row for every side that it stands on
    side=pa.string(),
    unit=pa.string(),  # recording or case, as the split names it
    leak_group=pa.string(),
)
