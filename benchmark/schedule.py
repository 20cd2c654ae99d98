"""When a run grows and by how much, where methods and configurations import it from."""

from benchmark.growth.schedule import (
    AtFractions,
    GrowthSchedule,
    Ladder,
    OnPlateau,
    OnSlope,
    Point,
    Progress,
    Proportional,
)

__all__ = [
    "AtFractions",
    "GrowthSchedule",
    "Ladder",
    "OnPlateau",
    "OnSlope",
    "Point",
    "Progress",
    "Proportional",
]
