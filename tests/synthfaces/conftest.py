import pytest

from s2flib.synthfaces import sample_identity, sample_look, sample_shot
from s2flib.synthfaces.edits import Scene


@pytest.fixture(scope="session")
def scene():
    """scene(index, seed=21): a photo before it is taken."""
    def make(index: int = 0, seed: int = 21, **fixed) -> Scene:
        person = sample_identity(seed, index, **fixed)
        return Scene(person, sample_look(person, seed, index), sample_shot(person, seed, index))

    return make
