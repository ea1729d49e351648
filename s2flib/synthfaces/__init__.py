"""SynthFaces: portraits of synthetic people, rendered with numpy from CC0 MakeHuman head data.

    from s2flib.synthfaces.identity import sample_identity
    from s2flib.synthfaces.look import sample_look
    from s2flib.synthfaces.person import Person
    from s2flib.synthfaces.portrait import photograph
    from s2flib.synthfaces.shot import sample_shot
    identity = sample_identity(seed=7, index=0)
    person = Person(identity, sample_look(identity, seed=7))
    picture = photograph(person, sample_shot(identity, seed=7), size=128)

Modules: ``mesh`` and ``assets`` (the head); ``identity``, ``look`` and ``shot`` (sampling); ``person``, ``hair``,
``accessories`` and ``regions`` (geometry); ``camera``, ``raster``, ``lighting``, ``skin``, ``eyes``, ``strands``,
``background``, ``film`` and ``portrait`` (rendering); ``labels`` and ``landmarks`` (annotations); ``drawing`` and
``strokes`` (line drawings); ``recall`` (witness noise); ``edits`` and ``phrases`` (edit pairs); ``render`` (data
sets).
"""

from s2flib.synthfaces.drawing import HANDS, line_drawing
from s2flib.synthfaces.edits import Edit, EditPair, Scene, apply_edit, possible_edits, render_edit, sample_edit_pair
from s2flib.synthfaces.identity import Identity, sample_identity, with_sliders
from s2flib.synthfaces.labels import LABELS
from s2flib.synthfaces.look import Look, restyle, sample_look
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import Portrait, photograph
from s2flib.synthfaces.recall import recall, recall_curve
from s2flib.synthfaces.render import attributes, render_dataset, render_shot
from s2flib.synthfaces.shot import Shot, sample_shot
