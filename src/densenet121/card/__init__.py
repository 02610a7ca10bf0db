"""Model cards: what a network is, how good it is and how it was made, for the hub and people."""

from collections.abc import Sequence

from densenet121.card import weights
from densenet121.card.markdown import document
from densenet121.checkpoint.native import ModelInfo


def weights_card(info: ModelInfo, title: str, origin: str, differences: Sequence[str]) -> str:
    """The card of weights whose run is not known.

    Args:
        info: network, task, classes and preprocessing.
        title: of the page, plain text.
        origin: a sentence on where the weights come from, plain text; may be empty.
        differences: what timm and transformers do in another way.
    """
    return document(
        weights.metadata(),
        title,
        [
            weights.summary(info, origin),
            weights.use(info),
            weights.preprocessing(info, differences),
            weights.classes(info),
            weights.intended_use(),
        ],
    )
