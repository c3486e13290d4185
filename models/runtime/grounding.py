"""From layouts to the tokens that GLIGEN is grounded on (Li et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...framework.errors import LayoutError, PhraseError
from ...framework.layout.regions import Layout, Region
from ..networks.gligen import PositionNet
from ..networks.text import TextEncoder
from ..networks.vision import ImageEncoder

SLOTS = 30  # of every sample, filled or not: what GLIGEN was trained with
SHARE = 0.3  # of the steps, from the first, that are grounded: scheduled sampling, as published for text and boxes


class Grounder:
    """Makes the tokens of layouts. What has no box (a phrase without a place, an empty slot) is GLIGEN's learnt null token.

    A mask stands for its bounding box, as GLIGEN knows boxes alone. A region's image fills its slot beside its phrase.

    Args:
        encoder: its pooled output, without a projection, is what stands for a phrase.
        share: of the steps that are grounded, from the first, in [0, 1].
        images: what encodes images; None where there is none, and then no region may have one.
    """

    def __init__(self, encoder: TextEncoder, net: PositionNet, share: float = SHARE, images: ImageEncoder | None = None) -> None:
        self.encoder, self.net, self.share, self.images = encoder, net, share, images

    def steps(self, count: int) -> int:
        """How many of `count` steps are grounded."""
        return int(self.share * count)

    def tokens(self, layouts: Sequence[Layout]) -> Tensor:
        """The grounding tokens `[b m d]` of layouts.

        Raises:
            LayoutError: more places than GLIGEN has slots.
            PhraseError: a phrase is too long for the text encoder, or has characters that its tokenizer does not know.
        """
        for layout in layouts:
            if len(layout.boxed) > SLOTS:
                raise LayoutError(f"{len(layout.boxed)} boxes in a layout: GLIGEN takes at most {SLOTS}; leave some out")
        null = self.net.null_position_feature
        boxes = torch.zeros(len(layouts), SLOTS, 4, device=null.device)
        filled = torch.zeros(len(layouts), SLOTS, device=null.device)
        phrases = torch.zeros(len(layouts), SLOTS, self.encoder.pooled_channels, device=null.device, dtype=null.dtype)
        shown, pictured = torch.zeros_like(phrases), torch.zeros_like(filled)
        known = self._embeddings(layouts)
        for i, layout in enumerate(layouts):
            for j, region in enumerate(layout.boxed):
                boxes[i, j] = torch.tensor(_box(region), device=null.device)
                filled[i, j] = 1
                phrases[i, j] = known[region.phrase]
                if self.images is not None and region.image is not None:
                    shown[i, j], pictured[i, j] = self.images.encode([region.image])[0], 1
        return self.net(boxes, filled, phrases, images=shown, pictured=pictured)

    def nothing(self, count: int) -> Tensor:
        """The tokens of `count` samples without any box: what the unconditional branch sees."""
        return self.tokens((Layout(),) * count)

    @torch.no_grad()
    def _embeddings(self, layouts: Sequence[Layout]) -> dict[str, Tensor]:
        phrases = list(dict.fromkeys(region.phrase for layout in layouts for region in layout.boxed))
        for phrase in phrases:
            table = self.encoder.tokens(phrase)
            if (cut := table.truncated_from) is not None:
                raise PhraseError(f"phrase {phrase!r}: too long for {self.encoder.length} tokens, from {phrase[cut:]!r} on")
            if unknown := " and ".join(map(repr, table.unknown)):
                raise PhraseError(
                    f"phrase {phrase!r}: the model that sees boxes has no token for {unknown}; use other words for it"
                )
        return dict(zip(phrases, self.encoder.encode(phrases).pooled, strict=True)) if phrases else {}


def _box(region: Region) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a region's box, or of the part of its mask that is at least half as high as its peak."""
    if region.box is not None:
        return region.box.xyxy
    if region.mask is None:
        raise LayoutError(f"region {region.phrase!r} has neither box nor mask")
    rows, columns = torch.nonzero(region.mask >= region.mask.max() / 2, as_tuple=True)
    height, width = region.mask.shape
    left, top = int(columns.min()) / width, int(rows.min()) / height
    return left, top, (int(columns.max()) + 1) / width, (int(rows.max()) + 1) / height
