"""Ways to learn from views without labels, behind one interface; `docs/objectives.md` compares them."""

from endofm.objectives.base import LossOutput, Objective, ObjectiveSettings
from endofm.objectives.choice import ObjectiveConfig, create_objective

__all__ = ["LossOutput", "Objective", "ObjectiveConfig", "ObjectiveSettings", "create_objective"]
