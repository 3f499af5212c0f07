"""Colonoscopic (Mesejo et al. 2016): 76 lesions, each filmed in white light and in narrow band.

Layout as the provider's URLs show it (seen through third parties, so nothing about it is an error when it differs:
what is not recognised is listed among the exclusions). The site spells "hyperplasic"; both spellings are taken.
There are no patient ids: the lesion is the strongest grouping, and its two recordings must share a split.
"""

from __future__ import annotations

from endocorpus.sources.layout import Layout, Sidecars, Videos

_FINDING = r"hyperplast?ic|serrated|adenoma"
_LESION = rf"(?:{_FINDING})/(?P<lesion>(?P<finding>{_FINDING})_\d+)"

LAYOUT: Layout = (
    Videos(
        pattern=rf"(?i:{_LESION}/videos/(?P<light>WL|NBI)\.mp4)",
        recording="{lesion}-{light}",
        case="{lesion}",
        case_basis="lesion",
        labels={"finding": "{finding}", "light": "{light}"},
    ),
    Sidecars(pattern=rf"(?i:{_LESION}/(?:videos/)?cam\.xml)"),
    Sidecars(pattern=r"cam\.xml|data\.txt|HumanEvaluation\.xlsx"),
)
