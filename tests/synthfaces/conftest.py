import pytest

from s2flib.synthfaces.edits import Scene
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.look import sample_look
from s2flib.synthfaces.shot import sample_shot


@pytest.fixture(scope="session")
def scene():
    """scene(index, seed=21): a photo before it is taken."""

    def make(index: int = 0, seed: int = 21, **fixed) -> Scene:
        person = sample_identity(seed, index, **fixed)
        return Scene(person, sample_look(person, seed, index), sample_shot(person, seed, index))

    return make
