"""The vector of causes: complete, finite, in a fixed order, and about the photo that is rendered."""

import numpy as np

from s2flib.synthfaces.causes import BACKGROUND, cause_names, causes, named_causes
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.look import HATS, restyle, sample_look
from s2flib.synthfaces.shot import sample_shot


def test_vector_and_names_agree():
    v = causes(1, 3)
    assert v.dtype == np.float32 and v.shape == (len(cause_names()),) and np.isfinite(v).all()
    assert len(set(cause_names())) == len(cause_names())
    for other in ((1, 3, 1), (5, 12, 2)):
        assert tuple(named_causes(*other)) == cause_names()
    assert np.array_equal(causes(1, 3), v) and not np.array_equal(causes(1, 4), v)


def test_causes_are_those_of_the_photo():
    seen = {"glasses": 0, "hat": 0}
    for identity in range(60):
        c = named_causes(2, identity, 1)
        person = sample_identity(2, identity)
        look = restyle(sample_look(person, 2, identity), person, 2, identity, day=1)
        shot = sample_shot(person, 2, identity, 1)
        assert c["age"] == person.age and c["yaw"] == shot.yaw and c["exposure"] == shot.exposure
        assert c[f"style={look.style}"] == 1 and sum(v for k, v in c.items() if k.startswith("style=")) == 1
        assert np.allclose([c[f"iris {x}"] for x in "rgb"], np.log(person.iris_rgb))
        assert c["glasses"] == (look.glasses is not None)
        assert [c[f"hat={h}"] for h in HATS] == [float(look.hat is not None and look.hat.kind == h) for h in HATS]
        if look.glasses is None:
            assert all(c[k] == 0 for k in c if k.startswith(("glasses", "frame", "sunglasses")))
        seen["glasses"] += look.glasses is not None
        seen["hat"] += look.hat is not None
    assert min(seen.values()) > 0, seen


def test_photos_of_one_person_share_the_person_only():
    a, b = named_causes(1, 7, 0), named_causes(1, 7, 1)
    differ = {k for k in a if a[k] != b[k]}
    assert not any(k.startswith(("shape ", "ancestry", "brow", "iris", "asym/")) for k in differ)
    assert {"yaw", "exposure", "background 0 r"} <= differ
    assert sum(k.startswith("background ") for k in a) == BACKGROUND**2 * 3
