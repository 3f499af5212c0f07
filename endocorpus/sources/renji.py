"""A hospital's own recordings, private: folders by procedure and examination, videos of any container, DICOM video.

Stands for the private part of the Endo-FM corpus, whose raw layout nobody outside has seen; any tree of this kind fits.
Recordings of one examination folder are one case; a file without such a folder is an examination of its own. A table
`labels.csv` may give the procedure, finding and consent of examinations.
"""

from __future__ import annotations

from fractions import Fraction

from endocorpus.sources.layout import ANY_FRAME, VIDEO, FrameFolders, Labels, Layout, Sidecars, Videos
from endocorpus.sources.readers import table

_PROCEDURE = r"(?P<procedure>(?i:[^/]*(?:colono|gastro|entero|sigmo|broncho|lapar|duodeno|capsule)[^/]*))"

LAYOUT: Layout = (
    Videos(
        pattern=rf"(?:.*/)?{_PROCEDURE}/(?P<exam>[^/]+){VIDEO}",
        recording="{path}",
        case="{exam}",
        case_basis="exam",
        labels={"folder": "{procedure}"},
    ),
    Videos(
        pattern=rf"(?:(?:.*/)?{_PROCEDURE}/)?(?P<exam>[^/]+)/(?:.*/)?(?P<stem>[^/]+){VIDEO}",
        recording="{path}",
        case="{exam}",
        case_basis="exam",
        labels={"folder": "{procedure}"},
    ),
    Videos(pattern=rf"(?P<exam>[^/]+){VIDEO}", recording="{path}", case="{exam}", case_basis="exam"),
    FrameFolders(
        pattern=ANY_FRAME,
        recording="{path}/{before}",
        case="{path}/{before}",
        case_basis="recording",
        rate=Fraction(25),
    ),
    Labels(
        pattern=r"(?:.*/)?labels\.csv",
        read=table("exam_id", {"procedure": "procedure", "finding": "finding", "consent": "consent"}),
        about="case",
    ),
    Sidecars(pattern=r"(?:.*/)?[^/]+\.(?:csv|xlsx|txt|pdf|xml)"),
)
